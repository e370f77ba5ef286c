//! The trace context of a call's headers, and the fields of an event that stand in its place.

use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::fields::{Property, Shape, Text};
use crate::domain::trace_context::{MAX_STATE_CHARS, TRACEPARENT, TRACESTATE, TraceContext};

/// What the reference says of `traceparent`, and of `tracestate`: they are headers and fields.
const ABOUT: [(&str, &str); 2] = [
    (
        TRACEPARENT,
        "The trace that the event belongs to (W3C Trace Context). Every attempt carries the same trace with a span of \
         its own. The field of an event is used in place of the call's header. An invalid value is ignored.",
    ),
    (
        TRACESTATE,
        "What tracing systems add to `traceparent`: up to 512 characters and 32 members. Every attempt carries it. An \
         invalid value is ignored, and so is a value without a valid `traceparent` beside it.",
    ),
];

/// The fields of an event.
pub fn fields() -> impl Iterator<Item = Property> {
    ABOUT.into_iter().map(|(name, about)| {
        let max = (name == TRACESTATE).then_some(MAX_STATE_CHARS);
        Property::new(name, about, Shape::Text(Text { max, ..Text::ANY }), false, &[])
    })
}

/// The headers of a call that publishes, as parameters of the reference.
pub fn parameters() -> impl Iterator<Item = Value> {
    ABOUT.into_iter().map(|(name, about)| {
        json!({
            "name": name, "in": "header", "required": false, "description": about,
            "schema": { "type": "string" },
        })
    })
}

/// The trace context of these headers.
pub fn of_headers(headers: &HeaderMap) -> Option<TraceContext> {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    // Of two nobody knows which one is meant.
    let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
    let states: Option<Vec<&str>> = headers.get_all(TRACESTATE).iter().map(|value| value.to_str().ok()).collect();
    TraceContext::parse(parent.to_str().ok()?, states.map(|states| states.join(",")).as_deref())
}

/// The trace context of an event's own fields.
pub fn of_fields(parent: Option<&Value>, state: Option<&Value>) -> Option<TraceContext> {
    TraceContext::parse(parent?.as_str()?, state.and_then(Value::as_str))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(pairs: &[(&'static str, &'static str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        of_headers(&headers).map(|trace| trace.column().to_owned())
    }

    #[test]
    fn several_states_are_one_and_several_parents_none() {
        assert_eq!(of(&[(TRACEPARENT, PARENT)]).as_deref(), Some(PARENT));
        let states = [(TRACEPARENT, PARENT), (TRACESTATE, "a=1"), (TRACESTATE, "b=2")];
        assert_eq!(of(&states), Some(format!("{PARENT} a=1,b=2")));
        assert_eq!(of(&[(TRACEPARENT, PARENT), (TRACEPARENT, PARENT)]), None);
        assert_eq!(of(&[(TRACESTATE, "a=1")]), None);
    }
}
