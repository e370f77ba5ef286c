//! What the reference says of every call. What the router knows (method, path, permission, bucket, whose keys) is not
//! said again here; errors that follow from it, or from the fields of the body, are added in `openapi`.

use super::description::Shape::{File, List, Nothing, One, Page};
use super::description::{Body, Description, Kind, Tag};
use super::filters;
use crate::api::accounts::{CreateAccount, CreateApiKey, UpdateAccount};
use crate::api::error::Code;
use crate::api::event_types::{CreateEventType, UpdateEventType};
use crate::api::events::{publish_event, publish_events};
use crate::api::fields::RequestBody as _;
use crate::api::filter_preview::PreviewFilter;
use crate::api::portal::CreatePortalLink;
use crate::api::replays::ReplayEvents;
use crate::api::users::{InviteUser, UpdateUser};
use crate::api::webhook_fields::{CreateWebhook, RegenerateSecret, UpdateWebhook};

pub const LIST_WEBHOOKS: Description = Description {
    id: "list_webhooks",
    tag: Tag::Webhooks,
    title: "List webhook endpoints",
    about: "Every endpoint of the account with its status and subscribed events, newest first. Secrets are not shown, \
            only their hints.",
    answer: List(Kind::WebhookEndpoint, "The endpoints."),
    filters: filters::ENDPOINTS,
    related: &["create_webhook", "get_webhook", "list_deliveries"],
    ..Description::BLANK
};

pub const CREATE_WEBHOOK: Description = Description {
    id: "create_webhook",
    tag: Tag::Webhooks,
    title: "Create a webhook endpoint",
    about: "Registers a receiver URL for up to 10 event types. The answer shows the HMAC-SHA256 signing secret exactly \
            once: store it securely, later answers carry only its hint.\n\nThe host is resolved now and at every \
            connection, and must not lead to a private, local or reserved address.",
    body: Body::Json(
        CreateWebhook::schema,
        r#"{"url":"https://example.com/webhooks","events":["validation.completed"],"description":"Production"}"#,
    ),
    status: 201,
    answer: One(Kind::WebhookEndpoint, "The endpoint is registered. Its secret is in this answer only."),
    errors: &[Code::WebhookLimitReached],
    guide: Some("fit-an-endpoint"),
    related: &["test_webhook", "regenerate_secret", "list_event_types"],
    ..Description::BLANK
};

pub const GET_WEBHOOK: Description = Description {
    id: "get_webhook",
    tag: Tag::Webhooks,
    title: "Get a webhook endpoint",
    about: "One endpoint: where it points, what it subscribes to, and how it is doing.",
    answer: One(Kind::WebhookEndpoint, "The endpoint."),
    guide: Some("when-a-receiver-is-down"),
    related: &["update_webhook", "list_webhook_deliveries"],
    ..Description::BLANK
};

pub const UPDATE_WEBHOOK: Description = Description {
    id: "update_webhook",
    tag: Tag::Webhooks,
    title: "Update a webhook endpoint",
    about: "Changes the fields that the body names; the others stay. `status: \"disabled\"` pauses the endpoint: its \
            deliveries wait, and events published meanwhile make none. `status: \"active\"` lets them go on and clears \
            the failure counter.",
    body: Body::Json(
        UpdateWebhook::schema,
        r#"{"filter":{"data":{"amount":{"$gte":100}}},"headers":{"X-Tenant":"north-42"},"rate_limit":"100/1m"}"#,
    ),
    answer: One(Kind::WebhookEndpoint, "The endpoint as it is now."),
    errors: &[Code::NoValidFields],
    guide: Some("fit-an-endpoint"),
    related: &["get_webhook", "delete_webhook"],
    ..Description::BLANK
};

pub const DELETE_WEBHOOK: Description = Description {
    id: "delete_webhook",
    tag: Tag::Webhooks,
    title: "Delete a webhook endpoint",
    about: "Removes the endpoint at once, and its delivery history with it. Attempts that are under way may still \
            arrive. To stop deliveries for a while, update its status instead.",
    status: 204,
    answer: Nothing("The endpoint is gone."),
    related: &["update_webhook", "create_webhook"],
    ..Description::BLANK
};

pub const REGENERATE_SECRET: Description = Description {
    id: "regenerate_secret",
    tag: Tag::Webhooks,
    title: "Regenerate webhook signing secret",
    about: "Rotates the HMAC-SHA256 signing secret for the endpoint. The new secret is returned exactly once in this \
            response: the previous one is invalidated immediately. Store it securely.\n\nWith `overlap_seconds` the \
            previous secret lives on beside the new one for that long: the signature headers that can hold several \
            then carry both, so that a receiver can be changed over without losing a delivery. At most 4 older secrets \
            live on.",
    body: Body::Optional(
        RegenerateSecret::schema,
        r#"{"overlap_seconds":86400}"#,
        "With an overlap: for a day the previous secret signs beside the new one.",
    ),
    answer: One(Kind::WebhookEndpoint, "The new signing secret. It is in this answer only."),
    guide: Some("rotate-a-secret"),
    related: &["get_webhook", "test_webhook", "create_webhook"],
    ..Description::BLANK
};

pub const TEST_WEBHOOK: Description = Description {
    id: "test_webhook",
    tag: Tag::Webhooks,
    title: "Send a test delivery",
    about: "Sends a signed delivery of type `test` now, waits for the receiver, and tells what came back. It is tried \
            once, appears in the list of deliveries, and never counts as a failure of the endpoint. A paused endpoint \
            can be tested too.",
    answer: One(Kind::WebhookTestResult, "The test was sent. Whether it arrived is in the attributes."),
    body: Body::Ignored,
    guide: Some("receive-and-verify"),
    related: &["list_webhook_deliveries", "regenerate_secret"],
    ..Description::BLANK
};

pub const LIST_WEBHOOK_DELIVERIES: Description = Description {
    id: "list_webhook_deliveries",
    tag: Tag::Deliveries,
    title: "List deliveries of an endpoint",
    about: "The endpoint's deliveries, newest first, each with its latest attempt.",
    answer: Page(Kind::WebhookDelivery, "A page of deliveries."),
    guide: Some("life-of-a-delivery"),
    related: &["list_deliveries", "export_webhook_deliveries", "get_webhook"],
    ..Description::BLANK
};

pub const LIST_DELIVERIES: Description = Description {
    id: "list_deliveries",
    tag: Tag::Deliveries,
    title: "List deliveries",
    about: "The deliveries of all endpoints of the account, newest first, each with its endpoint's URL and its latest \
            attempt. Of several filters all must hold, of several values of one filter any.",
    answer: Page(Kind::WebhookDelivery, "A page of deliveries."),
    filters: filters::DELIVERIES,
    guide: Some("life-of-a-delivery"),
    related: &["list_webhook_deliveries", "get_delivery", "export_deliveries"],
    ..Description::BLANK
};

pub const EXPORT_WEBHOOK_DELIVERIES: Description = Description {
    id: "export_webhook_deliveries",
    tag: Tag::Deliveries,
    title: "Export deliveries of an endpoint",
    about: "The endpoint's deliveries as a CSV or XLSX file, newest first, up to 100,000 rows. The columns are named \
            like the attributes of a delivery. A CSV cell that a spreadsheet would run as a formula begins with an \
            apostrophe.",
    answer: File("The file, sent as it is made. Where it breaks off, so does the connection."),
    related: &["list_webhook_deliveries", "export_deliveries"],
    ..Description::BLANK
};

pub const EXPORT_DELIVERIES: Description = Description {
    id: "export_deliveries",
    tag: Tag::Deliveries,
    title: "Export deliveries",
    about: "The deliveries of all endpoints of the account as a CSV or XLSX file, newest first, up to 100,000 rows, \
            with the same filters as the list. An account can have two exports under way. \
            One whose client takes nothing for 10 seconds breaks off.",
    answer: File("The file, sent as it is made. Where it breaks off, so does the connection."),
    filters: filters::DELIVERIES,
    related: &["list_deliveries", "export_webhook_deliveries"],
    ..Description::BLANK
};

pub const GET_DELIVERY: Description = Description {
    id: "get_delivery",
    tag: Tag::Deliveries,
    title: "Get a delivery",
    about: "One delivery with all that is known of it: the body that it sends, the headers of its latest request, and \
            what every attempt came to.",
    answer: One(Kind::WebhookDeliveryDetail, "The delivery and its attempts."),
    guide: Some("life-of-a-delivery"),
    related: &["retry_delivery", "list_deliveries"],
    ..Description::BLANK
};

pub const RETRY_DELIVERY: Description = Description {
    id: "retry_delivery",
    tag: Tag::Deliveries,
    title: "Retry a delivery",
    about: "Sends a delivery that has succeeded or failed once more, now, with the endpoint's current URL and secret. \
            The delivery keeps its id, and its retry schedule begins afresh. While the endpoint is not active the \
            delivery waits.",
    body: Body::Ignored,
    status: 202,
    answer: One(Kind::WebhookDelivery, "The delivery waits for its next attempt."),
    errors: &[Code::DeliveryUnderWay, Code::PayloadExpired],
    guide: Some("replay-after-an-outage"),
    related: &["get_delivery", "replay_events"],
    ..Description::BLANK
};

pub const REPLAY: Description = Description {
    id: "replay_events",
    tag: Tag::Deliveries,
    title: "Replay events",
    about: "Sends the events of a stretch of time to the endpoint again, as a durable job that goes on after a \
            restart. Each event of the job gets exactly one new delivery with a new id. New events go first; while the \
            endpoint is not active the job waits.\n\nEvents older than the retention period are left out. An endpoint \
            has at most 10 unfinished replays, an account 100.",
    body: Body::Json(ReplayEvents::schema, r#"{"from":"2026-01-01T00:00:00Z","status":"all"}"#),
    status: 202,
    answer: One(Kind::WebhookReplay, "The job is on disk and begins."),
    errors: &[Code::ReplayLimitReached],
    guide: Some("replay-after-an-outage"),
    related: &["get_replay", "cancel_replay", "get_missed", "retry_delivery"],
    ..Description::BLANK
};

pub const GET_REPLAY: Description = Description {
    id: "get_replay",
    tag: Tag::Deliveries,
    title: "Get a replay",
    about: "How far a replay has come. A replay is completed when each of its events has been sent once; what failed \
            is then retried on the usual schedule.",
    answer: One(Kind::WebhookReplay, "The replay as it is now."),
    guide: Some("replay-after-an-outage"),
    related: &["replay_events", "cancel_replay"],
    ..Description::BLANK
};

pub const CANCEL_REPLAY: Description = Description {
    id: "cancel_replay",
    tag: Tag::Deliveries,
    title: "Cancel a replay",
    about: "Stops a replay. What it has sent stays in the log; its deliveries that were not tried yet go away, apart \
            from those that are just being sent. A replay that is finished stays as it is.",
    status: 204,
    answer: Nothing("The replay is stopped."),
    guide: Some("replay-after-an-outage"),
    related: &["get_replay", "replay_events"],
    ..Description::BLANK
};

pub const GET_MISSED: Description = Description {
    id: "get_missed",
    tag: Tag::Deliveries,
    title: "Count missed events",
    about: "Events that made no delivery to the endpoint because it was not active when they were published, and that \
            no replay has sent since. A replay with `status: \"missed\"` sends them.",
    answer: One(Kind::WebhookMissed, "How many there are, and since when."),
    guide: Some("replay-after-an-outage"),
    related: &["replay_events", "update_webhook"],
    ..Description::BLANK
};

pub const GET_STATISTICS: Description = Description {
    id: "get_statistics",
    tag: Tag::Deliveries,
    title: "Count attempts",
    about: "Attempts over the last hour, day or week by what came of them, and how long they took, in steps. Test \
            sends are not counted. A count is some seconds behind, and one that a killed server had not written down \
            yet is lost: the deliveries themselves never are.",
    answer: One(Kind::WebhookStatistics, "The counts."),
    filters: filters::STATISTICS,
    errors: &[Code::NotFound],
    related: &["list_deliveries", "list_webhook_deliveries"],
    ..Description::BLANK
};

pub const PREVIEW_FILTER: Description = Description {
    id: "preview_filter",
    tag: Tag::Webhooks,
    title: "Preview a filter",
    about: "Tries a filter on the account's newest events, without storing anything: how many of them match, and for \
            those that do not, the first condition that failed. It looks at 1,000 events and 16 MiB at most, as far as \
            their bodies are kept. An account has one preview under way at a time; another one is \
            answered with 503.",
    body: Body::Json(PreviewFilter::schema, r#"{"filter":{"data":{"result":"valid"}},"events":["validation.*"]}"#),
    answer: One(Kind::WebhookFilterPreview, "What the filter would have done."),
    guide: Some("fit-an-endpoint"),
    related: &["create_webhook", "update_webhook", "list_events"],
    ..Description::BLANK
};

pub const PUBLISH_EVENT: Description = Description {
    id: "publish_event",
    tag: Tag::Events,
    title: "Publish an event",
    about: "Accepts an event and makes one delivery for each active endpoint of the account that subscribes to its \
            type. When the answer is 202, the event and its deliveries are on disk.\n\nSend an `Idempotency-Key`, so \
            that a call whose answer was lost can be repeated safely.",
    body: Body::Json(
        publish_event,
        r#"{"event":"validation.completed","data":{"id":"7f3d9a52-6c1e-4b0a-9d57-2f8e41c6b3aa","result":"valid"}}"#,
    ),
    status: 202,
    answer: One(Kind::Event, "The event is accepted and on disk."),
    guide: Some("idempotent-publishing"),
    related: &["publish_events", "get_event", "list_event_types"],
    ..Description::BLANK
};

pub const PUBLISH_EVENTS: Description = Description {
    id: "publish_events",
    tag: Tag::Events,
    title: "Publish a batch of events",
    about: "Accepts up to 1,000 events in one call and one commit, all or none. The body is a JSON object with \
            `events`, or NDJSON (`Content-Type: application/x-ndjson`) with one event on each line; up to 8 MiB in \
            all. Where one event is at fault the pointer begins with `/events/<index>`, and nothing is accepted.",
    body: Body::Batch(
        publish_events,
        r#"{"events":[{"event":"validation.completed","data":{"n":1}},{"event":"validation.failed","data":{"n":2}}]}"#,
    ),
    status: 202,
    answer: List(Kind::Event, "All events are accepted and on disk."),
    guide: Some("idempotent-publishing"),
    related: &["publish_event", "list_events"],
    ..Description::BLANK
};

pub const LIST_EVENTS: Description = Description {
    id: "list_events",
    tag: Tag::Events,
    title: "List events",
    about: "The account's events, newest first.",
    answer: Page(Kind::Event, "A page of events."),
    related: &["get_event", "list_deliveries"],
    ..Description::BLANK
};

pub const GET_EVENT: Description = Description {
    id: "get_event",
    tag: Tag::Events,
    title: "Get an event",
    about: "One event and all deliveries that it fanned out to.",
    answer: One(Kind::EventWithDeliveries, "The event and its deliveries."),
    related: &["list_events", "list_deliveries"],
    ..Description::BLANK
};

pub const LIST_EVENT_TYPES: Description = Description {
    id: "list_event_types",
    tag: Tag::EventTypes,
    title: "List event types",
    about: "The catalog: every type that can be published and subscribed to, by name.",
    answer: Page(Kind::EventType, "A page of the catalog."),
    related: &["create_webhook", "publish_event"],
    ..Description::BLANK
};

pub const CREATE_EVENT_TYPE: Description = Description {
    id: "create_event_type",
    tag: Tag::EventTypes,
    title: "Create an event type",
    about: "Adds a type to the catalog. With a JSON Schema, the `data` of its events is checked when they are \
            published.",
    body: Body::Json(
        CreateEventType::schema,
        concat!(
            r#"{"name":"order.shipped","description":"An order has left the warehouse.","#,
            r#""schema":{"type":"object","required":["order"],"properties":{"order":{"type":"string"}}},"#,
            r#""example":{"order":"A-1042"}}"#,
        ),
    ),
    status: 201,
    answer: One(Kind::EventType, "The type is in the catalog."),
    errors: &[Code::EventTypeExists],
    related: &["update_event_type", "list_event_types"],
    ..Description::BLANK
};

pub const UPDATE_EVENT_TYPE: Description = Description {
    id: "update_event_type",
    tag: Tag::EventTypes,
    title: "Update an event type",
    about: "Changes the description, schema or example of a type; what the body does not name stays. Events that were \
            accepted before are not looked at again.",
    body: Body::Json(
        UpdateEventType::schema,
        r#"{"description":"An order has left the warehouse and is on its way."}"#,
    ),
    answer: One(Kind::EventType, "The type as it is now."),
    errors: &[Code::NoValidFields],
    related: &["list_event_types", "delete_event_type"],
    ..Description::BLANK
};

pub const DELETE_EVENT_TYPE: Description = Description {
    id: "delete_event_type",
    tag: Tag::EventTypes,
    title: "Delete an event type",
    about: "Takes a type out of the catalog: it can no longer be published. Endpoints that subscribe to it stay \
            subscribed, and get its events again when it comes back.",
    status: 204,
    answer: Nothing("The type is out of the catalog."),
    related: &["list_event_types", "create_event_type"],
    ..Description::BLANK
};

pub const LIST_ACCOUNTS: Description = Description {
    id: "list_accounts",
    tag: Tag::Accounts,
    title: "List accounts",
    about: "All accounts, newest first. An account's own key sees its own account only.",
    answer: Page(Kind::Account, "A page of accounts."),
    related: &["create_account", "get_account"],
    ..Description::BLANK
};

pub const CREATE_ACCOUNT: Description = Description {
    id: "create_account",
    tag: Tag::Accounts,
    title: "Create an account",
    about: "Makes an account: the owner of endpoints, events and keys. Usually one for each of your customers.",
    body: Body::Json(CreateAccount::schema, r#"{"name":"Acme"}"#),
    status: 201,
    answer: One(Kind::Account, "The account is made."),
    guide: Some("production"),
    related: &["create_api_key", "list_accounts"],
    ..Description::BLANK
};

pub const GET_ACCOUNT: Description = Description {
    id: "get_account",
    tag: Tag::Accounts,
    title: "Get an account",
    about: "One account. An account's own key sees its own account only.",
    answer: One(Kind::Account, "The account."),
    related: &["update_account", "list_api_keys"],
    ..Description::BLANK
};

pub const UPDATE_ACCOUNT: Description = Description {
    id: "update_account",
    tag: Tag::Accounts,
    title: "Update an account",
    about: "Changes the account's name, and how long its history is kept. The fields that the body does not \
            name stay. All but the name is the operator's to change: an account's own key changes the name only. What \
            is older than a new retention goes within some minutes.",
    body: Body::Json(UpdateAccount::schema, r#"{"name":"Acme Inc."}"#),
    answer: One(Kind::Account, "The account as it is now."),
    errors: &[Code::NoValidFields],
    related: &["get_account"],
    ..Description::BLANK
};

pub const DELETE_ACCOUNT: Description = Description {
    id: "delete_account",
    tag: Tag::Accounts,
    title: "Delete an account",
    about: "Removes an account with its keys and endpoints at once, and its events and deliveries in the background.",
    status: 204,
    answer: Nothing("The account is gone."),
    related: &["list_accounts"],
    ..Description::BLANK
};

pub const LIST_API_KEYS: Description = Description {
    id: "list_api_keys",
    tag: Tag::ApiKeys,
    title: "List API keys",
    about: "The keys of an account, newest first. Keys are not shown, only their hints.",
    answer: Page(Kind::ApiKey, "A page of keys."),
    related: &["create_api_key", "delete_api_key"],
    ..Description::BLANK
};

pub const CREATE_API_KEY: Description = Description {
    id: "create_api_key",
    tag: Tag::ApiKeys,
    title: "Create an API key",
    about: "Makes a key that acts for the account. The answer shows the key exactly once; it is stored only as a hash. \
            A key that is made with a key has no permission that its maker has not, and ends with its maker at the \
            latest: a later or absent `expires_at` becomes the maker's. An account has at most 100 keys, or as many as \
            the server's settings say.",
    body: Body::Json(CreateApiKey::schema, r#"{"name":"publisher","permissions":["events:create"]}"#),
    status: 201,
    answer: One(Kind::ApiKey, "The key is made. It is in this answer only."),
    errors: &[Code::ApiKeyLimitReached],
    guide: Some("production"),
    related: &["delete_api_key", "list_api_keys"],
    ..Description::BLANK
};

pub const DELETE_API_KEY: Description = Description {
    id: "delete_api_key",
    tag: Tag::ApiKeys,
    title: "Revoke an API key",
    about: "Revokes a key of the account. It is refused from the next call on. A key revokes no key that has a \
            permission which it has not itself.",
    status: 204,
    answer: Nothing("The key is revoked."),
    related: &["create_api_key", "list_api_keys"],
    ..Description::BLANK
};

pub const LIST_USERS: Description = Description {
    id: "list_users",
    tag: Tag::Users,
    title: "List users",
    about: "The people who may sign in to the account's dashboard, those who were invited first at the top.",
    answer: Page(Kind::User, "A page of users."),
    guide: Some("dashboard"),
    related: &["invite_user", "update_user"],
    ..Description::BLANK
};

pub const INVITE_USER: Description = Description {
    id: "invite_user",
    tag: Tag::Users,
    title: "Invite a user",
    about: "Makes a user and an invitation: an address where they set their password, shown in this answer only. It \
            works once, for seven days. Send it to them; we send no mail. A key that expires makes no user, because \
            the user would outlive it.",
    body: Body::Json(InviteUser::schema, r#"{"email":"ana@example.com","role":"developer"}"#),
    status: 201,
    answer: One(Kind::User, "The user is made. The invitation's address is in this answer only."),
    errors: &[Code::KeyExpires, Code::EmailTaken],
    guide: Some("dashboard"),
    related: &["list_users", "renew_invitation"],
    ..Description::BLANK
};

pub const GET_USER: Description = Description {
    id: "get_user",
    tag: Tag::Users,
    title: "Get a user",
    about: "One user of the account.",
    answer: One(Kind::User, "The user."),
    related: &["list_users", "update_user"],
    ..Description::BLANK
};

pub const UPDATE_USER: Description = Description {
    id: "update_user",
    tag: Tag::Users,
    title: "Change a user's role",
    about: "Gives a user another role, which holds from their next click on. The account's last owner stays one. A \
            key that expires gives nobody a role that allows more.",
    body: Body::Json(UpdateUser::schema, r#"{"role":"viewer"}"#),
    answer: One(Kind::User, "The user with the new role."),
    errors: &[Code::KeyExpires, Code::NoValidFields, Code::LastOwner],
    related: &["get_user", "delete_user"],
    ..Description::BLANK
};

pub const DELETE_USER: Description = Description {
    id: "delete_user",
    tag: Tag::Users,
    title: "Delete a user",
    about: "Deletes a user and ends their sessions at once. The account's last owner stays.",
    status: 204,
    answer: Nothing("The user is deleted."),
    errors: &[Code::LastOwner],
    related: &["list_users", "invite_user"],
    ..Description::BLANK
};

pub const RENEW_INVITATION: Description = Description {
    id: "renew_invitation",
    tag: Tag::Users,
    title: "Invite a user again",
    about: "Makes a new invitation for a user: for one who let the first lapse, or who has lost their password. The \
            one before stops working at once. What they sign in with stays until they use it; then the password is \
            the new one, and every session has ended. A second factor stays, and takes its code. A key that expires \
            makes no invitation.",
    body: Body::Ignored,
    answer: One(Kind::User, "The invitation's address is in this answer only."),
    errors: &[Code::KeyExpires],
    related: &["invite_user", "get_user"],
    ..Description::BLANK
};

pub const CREATE_PORTAL_LINK: Description = Description {
    id: "create_portal_link",
    tag: Tag::PortalLinks,
    title: "Create a portal link",
    about: "Makes a short-lived address that opens the account's pages without a sign-in, with the permissions that \
            you choose, under your name and in your colour. Hand it to a customer who is signed in with you, or show \
            it in a frame of a site that `frame_origins` names. Whoever has the address is let in until it expires.",
    body: Body::Json(
        CreatePortalLink::schema,
        concat!(
            r##"{"permissions":["webhooks:read","webhooks:update"],"brand":"Example","color":"#0b5cad","##,
            r##""frame_origins":["https://app.example.com"]}"##,
        ),
    ),
    status: 201,
    answer: One(Kind::PortalLink, "The address is in this answer only."),
    guide: Some("dashboard"),
    related: &["list_portal_links", "delete_portal_link"],
    ..Description::BLANK
};

pub const LIST_PORTAL_LINKS: Description = Description {
    id: "list_portal_links",
    tag: Tag::PortalLinks,
    title: "List portal links",
    about: "The links into the account's pages that have not expired, without their addresses: what each allows, until \
            when, and when it was first opened. Those that live longest come first.",
    answer: Page(Kind::PortalLink, "A page of portal links."),
    guide: Some("dashboard"),
    related: &["delete_portal_link", "create_portal_link"],
    ..Description::BLANK
};

pub const DELETE_PORTAL_LINK: Description = Description {
    id: "delete_portal_link",
    tag: Tag::PortalLinks,
    title: "Revoke a portal link",
    about: "Ends a link before its time. Whoever has it open sees nothing more from their next click on.",
    status: 204,
    answer: Nothing("The link is revoked."),
    related: &["list_portal_links", "create_portal_link"],
    ..Description::BLANK
};

pub const LIST_AUDIT_LOG: Description = Description {
    id: "list_audit_log",
    tag: Tag::AuditLog,
    title: "List the audit log",
    about: "Every change of endpoints, secrets, replays, event types, accounts, keys, users and portal links, every \
            sign-in and the first opening of each portal link, newest first: who made it, to what, when, from where, \
            and in which request. A change and its entry are one commit. An account's key sees what concerns its \
            account, an operator's key everything. Secrets, keys and the values of fields are never in it. Publishing \
            and test sends are in the lists of events and deliveries instead.",
    answer: Page(Kind::AuditEntry, "A page of the log."),
    filters: filters::AUDIT_LOG,
    related: &["export_audit_log", "list_api_keys"],
    ..Description::BLANK
};

pub const EXPORT_AUDIT_LOG: Description = Description {
    id: "export_audit_log",
    tag: Tag::AuditLog,
    title: "Export the audit log",
    about: "The audit log as a CSV or XLSX file, newest first, up to 100,000 rows, with the same filters as the list. \
            The columns are named like the attributes of an entry.",
    answer: File("The file, sent as it is made. Where it breaks off, so does the connection."),
    filters: filters::AUDIT_LOG,
    related: &["list_audit_log", "export_deliveries"],
    ..Description::BLANK
};
