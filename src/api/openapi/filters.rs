//! The filters of lists, and what the reference says of each.

/// Of deliveries.
pub const DELIVERIES: &[(&str, &str)] = &[
    ("endpoint_id", "UUIDs of up to 20 endpoints, separated by commas."),
    ("status", "`pending`, `retrying`, `success` or `failed`; several with commas."),
    ("event_type", "Event types, also `test` and those that are no longer in the catalog; several with commas."),
    (
        "response_status",
        "A status, `2xx`, `3xx`, `4xx`, `5xx`, or `none` where there was no answer; several with commas.",
    ),
    ("validation_id", "UUIDs of validations, separated by commas."),
    (
        "from",
        "Made at this time or later: an ISO 8601 date-time with its offset, or a date, which begins at midnight UTC.",
    ),
    ("to", "Made until the end of this second, or of this day in UTC."),
    ("min_attempt", "With at least this number of attempts."),
    ("min_response_time_ms", "With a latest attempt that took at least this long, in milliseconds."),
    (
        "q",
        "Text in the delivery's or endpoint's id, the endpoint's URL or description, the event type, the validation's \
         id or the response status. Case does not matter; what is past 100 characters is cut off.",
    ),
];

/// Of statistics.
pub const STATISTICS: &[(&str, &str)] = &[
    ("period", "`1h`, `24h` (the default) or `7d`: how far back they reach."),
    ("endpoint_id", "UUID of one endpoint; without it all of the account are counted."),
];

/// Of the endpoints.
pub const ENDPOINTS: &[(&str, &str)] = &[
    ("external_id", "The endpoint that has this external id."),
    ("metadata.<key>", "Those whose metadata has this string under the key. Of several keys all must hold."),
];

/// Of the audit log.
pub const AUDIT_LOG: &[(&str, &str)] = &[
    ("action", "What was done, such as `webhook.updated`; several with commas."),
    ("actor_id", "Ids of API keys, users or portal links, separated by commas."),
    ("resource_type", "Types such as `webhook_endpoint`; several with commas."),
    ("resource_id", "Ids of what it was done to, separated by commas."),
    ("account_id", "UUID of the account that it concerns. An account's key sees its own only."),
    (
        "from",
        "Done at this time or later: an ISO 8601 date-time with its offset, or a date, which begins at midnight UTC.",
    ),
    ("to", "Done until the end of this second, or of this day in UTC."),
];
