"""Every page of the dashboard: where it is, and who may see it."""

ROLES = ["owner", "developer", "viewer", "operator"]

SIZES = {"phone": {"width": 390, "height": 844}, "desktop": {"width": 1280, "height": 800}}

EVERYBODY = {"owner", "developer", "viewer", "operator", "portal"}
CHANGERS = {"owner", "developer", "operator", "portal"}
DEVELOPERS = {"owner", "developer", "operator"}
OWNERS = {"owner", "operator"}

# Of an account, below its address.
OF_ACCOUNT = {
    "overview": ("", EVERYBODY),
    "overview-week": ("?period=7d", EVERYBODY),
    "endpoints": ("/endpoints", EVERYBODY),
    "endpoint-new": ("/endpoints/new", CHANGERS),
    "endpoint": ("/endpoints/{warehouse}", EVERYBODY),
    "endpoint-failing": ("/endpoints/{billing}", EVERYBODY),
    "endpoint-hostile": ("/endpoints/{hostile}", EVERYBODY),
    "endpoint-auto-disabled": ("/endpoints/{gone}", EVERYBODY),
    "endpoint-paused": ("/endpoints/{paused}", EVERYBODY),
    "endpoint-edit": ("/endpoints/{warehouse}/edit", CHANGERS),
    "endpoint-delete": ("/endpoints/{warehouse}/delete", CHANGERS),
    "endpoint-rotate": ("/endpoints/{warehouse}/rotate", CHANGERS),
    "endpoint-replay": ("/endpoints/{paused}/replay", CHANGERS),
    "replay": ("/replays/{replay}", EVERYBODY),
    "deliveries": ("/deliveries", EVERYBODY),
    "deliveries-page-3": ("/deliveries?page=3", EVERYBODY),
    "deliveries-failed": ("/deliveries?status=failed&from=2026-01-01", EVERYBODY),
    "deliveries-none": ("/deliveries?q=nothing-is-called-so", EVERYBODY),
    "delivery": ("/deliveries/{success}", EVERYBODY),
    "delivery-failed": ("/deliveries/{failed}", EVERYBODY),
    "delivery-retrying": ("/deliveries/{retrying}", EVERYBODY),
    "delivery-held": ("/deliveries/{pending}", EVERYBODY),
    "delivery-hostile": ("/deliveries/{hostile_delivery}", EVERYBODY),
    "events": ("/events", EVERYBODY),
    "event": ("/events/{event}", EVERYBODY),
    "event-types": ("/event-types", EVERYBODY),
    "event-type": ("/event-types/order.created", EVERYBODY),
    "api-keys": ("/api-keys", DEVELOPERS),
    "api-key-new": ("/api-keys/new", OWNERS),
    "api-key-revoke": ("/api-keys/{key}/revoke", OWNERS),
    "users": ("/users", OWNERS),
    "user-invite": ("/users/invite", OWNERS),
    "user": ("/users/{user}", OWNERS),
    "user-delete": ("/users/{user}/delete", OWNERS),
    "portal-links": ("/portal-links", OWNERS),
    "portal-link-revoke": ("/portal-links/{link}/revoke", OWNERS),
    "audit-log": ("/audit-log", DEVELOPERS),
}

# Of whoever is signed in.
OF_USER = {"me": "/me", "two-factor": "/me/two-factor"}

OF_OPERATOR = {
    "operator-accounts": "/operator",
    "operator-account-new": "/operator/accounts/new",
    "operator-account": "/operator/accounts/{account}",
    "operator-account-delete": "/operator/accounts/{account}/delete",
    "operator-event-types": "/operator/event-types",
    "operator-event-type-new": "/operator/event-types/new",
    "operator-event-type": "/operator/event-types/order.created",
    "operator-event-type-delete": "/operator/event-types/order.created/delete",
    "operator-audit-log": "/operator/audit-log",
}

# For those who are not signed in.
OUTSIDE = {"sign-in": "/sign-in", "join": "/join/{invitation}"}

# Pages that say that something is not possible, with the status that they have.
REFUSALS = {
    "missing": ("/accounts/{account}/moon", 404),
    "missing-delivery": ("/accounts/{account}/deliveries/1", 404),
    "missing-endpoint": ("/accounts/{account}/endpoints/00000000-0000-4000-8000-000000000000", 404),
    "another-account": ("/accounts/00000000-0000-4000-8000-000000000000", 404),
    "bad-filter": ("/accounts/{account}/deliveries?min_attempt=x", 422),
}

# What stands in the navigation, in its order.
NAVIGATION = {
    "owner": ["Overview", "Endpoints", "Deliveries", "Events", "Event types", "API keys", "Users", "Portal links",
              "Audit log"],
    "developer": ["Overview", "Endpoints", "Deliveries", "Events", "Event types", "API keys", "Audit log"],
    "viewer": ["Overview", "Endpoints", "Deliveries", "Events", "Event types"],
    "operator": ["Overview", "Endpoints", "Deliveries", "Events", "Event types", "API keys", "Users", "Portal links",
                 "Audit log", "All accounts"],
    "portal": ["Overview", "Endpoints", "Deliveries", "Events", "Event types"],
}


def of_role(role, names, portal=""):
    """The pages that somebody in this role may open: name and address."""
    home = portal or f"/accounts/{names['account']}"
    found = {name: home + path.format(**names) for name, (path, roles) in OF_ACCOUNT.items() if role in roles}
    if role != "portal":
        found |= OF_USER
    if role == "operator":
        found |= {name: path.format(**names) for name, path in OF_OPERATOR.items()}
    return found
