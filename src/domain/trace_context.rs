//! Trace context (W3C Trace Context, Level 1): the trace in which an event was published, and the child span that each
//! attempt is.

use std::sync::Arc;

/// The header, and the field of an event, that names the trace and the publisher's span.
pub const TRACEPARENT: &str = "traceparent";

/// The header, and the field of an event, that holds what tracing systems add.
pub const TRACESTATE: &str = "tracestate";

/// Characters of a `traceparent` of version 00, and of the part of later versions that this program reads.
const PARENT_CHARS: usize = 55;

/// Most characters of a `tracestate`: those that everybody who passes it on should keep.
pub const MAX_STATE_CHARS: usize = 512;

/// Most members of a `tracestate`.
const MAX_STATE_MEMBERS: usize = 32;

/// The flags that have a meaning: `sampled`, and the `random` of Level 2. The others are sent as zero.
const KNOWN_FLAGS: u8 = 0b11;

/// The trace context of an event: `traceparent`, and after a space the `tracestate` of up to [`MAX_STATE_CHARS`], if
/// there is one. Clones share it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TraceContext(Arc<str>);

impl TraceContext {
    /// From the two values as a publisher sends them. `None` where `traceparent` is not valid; a `tracestate` that is
    /// not valid is left out.
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let mut text = read_parent(traceparent)?;
        if let Some(state) = tracestate.and_then(read_state) {
            text.push(' ');
            text.push_str(&state);
        }
        Some(Self(text.into()))
    }

    /// From the column. `None` where it holds what was never written: then the attempt is in no trace.
    pub fn from_column(column: &str) -> Option<Self> {
        match column.split_once(' ') {
            Some((parent, state)) => Self::parse(parent, Some(state)),
            None => Self::parse(column, None),
        }
    }

    /// As a column has it.
    pub fn column(&self) -> &str {
        &self.0
    }

    /// The `traceparent` of a child with this span id.
    pub fn child(&self, span: [u8; 8]) -> String {
        // Zero is no id.
        let span = u64::from_be_bytes(span).max(1);
        let (trace, flags) = (&self.0[..36], &self.0[52..PARENT_CHARS]);
        format!("{trace}{span:016x}{flags}")
    }

    /// The `tracestate`.
    pub fn state(&self) -> Option<&str> {
        self.0.get(PARENT_CHARS + 1..)
    }
}

/// The `traceparent`, as one of version 00.
fn read_parent(text: &str) -> Option<String> {
    let (known, rest) = text.split_at_checked(PARENT_CHARS)?;
    let mut parts = known.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let fits = is_hex(version, 2)
        && version != "ff"
        && is_id(trace, 32)
        && is_id(parent, 16)
        && is_hex(flags, 2)
        // A later version may add parts.
        && (rest.is_empty() || version != "00" && rest.starts_with('-'));
    let flags = u8::from_str_radix(flags, 16).ok()? & KNOWN_FLAGS;
    fits.then(|| format!("00-{trace}-{parent}-{flags:02x}"))
}

fn is_hex(text: &str, chars: usize) -> bool {
    text.len() == chars && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_id(text: &str, chars: usize) -> bool {
    is_hex(text, chars) && text.bytes().any(|b| b != b'0')
}

/// The `tracestate` without empty members and the spaces around members.
fn read_state(text: &str) -> Option<String> {
    if text.len() > MAX_STATE_CHARS {
        return None;
    }
    let members = text.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|member| !member.is_empty());
    let members: Vec<&str> = members.collect();
    let fits = (1..=MAX_STATE_MEMBERS).contains(&members.len()) && members.iter().all(|member| is_member(member));
    fits.then(|| members.join(","))
}

fn is_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else { return false };
    let is_value = (1..=256).contains(&value.len()) && value.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'=');
    let is_key = match key.split_once('@') {
        None => is_name(key, 256, false),
        Some((tenant, system)) => is_name(tenant, 241, true) && is_name(system, 14, false),
    };
    is_key && is_value
}

/// Whether this is a key of a `tracestate`, or one of the two parts of a key.
fn is_name(text: &str, most: usize, may_begin_with_digit: bool) -> bool {
    let may_begin = |b: &u8| b.is_ascii_lowercase() || may_begin_with_digit && b.is_ascii_digit();
    let may_follow = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'*' | b'/');
    text.len() <= most && text.as_bytes().first().is_some_and(may_begin) && text.bytes().all(may_follow)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: [u8; 8] = [0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7];

    fn child_of(traceparent: &str) -> Option<String> {
        TraceContext::parse(traceparent, None).map(|trace| trace.child(SPAN))
    }

    fn state_of(tracestate: &str) -> Option<String> {
        let trace = TraceContext::parse(&format!("00-{TRACE}-b7ad6b7169203331-01"), Some(tracestate)).expect("a trace");
        trace.state().map(str::to_owned)
    }

    #[test]
    fn a_child_has_the_trace_and_the_known_flags_of_its_parent() {
        for (sent, flags) in [
            (format!("00-{TRACE}-b7ad6b7169203331-01"), "01"),
            (format!("00-{TRACE}-b7ad6b7169203331-00"), "00"),
            (format!("00-{TRACE}-b7ad6b7169203331-03"), "03"),
            (format!("00-{TRACE}-b7ad6b7169203331-fd"), "01"),
            (format!("cc-{TRACE}-b7ad6b7169203331-01"), "01"),
            (format!("cc-{TRACE}-b7ad6b7169203331-01-what-the-future-adds"), "01"),
        ] {
            assert_eq!(child_of(&sent), Some(format!("00-{TRACE}-00f067aa0ba902b7-{flags}")), "{sent}");
        }
    }

    #[test]
    fn what_is_no_traceparent_is_no_trace() {
        for bad in [
            String::new(),
            "00".into(),
            format!("00-{TRACE}-b7ad6b7169203331"),
            format!("00-{TRACE}-b7ad6b7169203331-0"),
            format!("00-{TRACE}-b7ad6b7169203331-01-"),
            format!("00-{TRACE}-b7ad6b7169203331-01-more"),
            format!("cc-{TRACE}-b7ad6b7169203331-01more"),
            format!("ff-{TRACE}-b7ad6b7169203331-01"),
            format!("0-{TRACE}-b7ad6b7169203331-011"),
            format!("00-{}-b7ad6b7169203331-01", TRACE.to_uppercase()),
            format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-b7ad6b7169203331-01", "g".repeat(32)),
            format!("00-{TRACE}-b7ad6b7169203331-0x"),
            format!("00-{TRACE}-b7ad6b7169203331-+1"),
            format!("00_{TRACE}_b7ad6b7169203331_01"),
            format!(" 00-{TRACE}-b7ad6b7169203331-01"),
            "é".repeat(40),
        ] {
            assert_eq!(child_of(&bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_span_is_never_zero() {
        let trace = TraceContext::parse(&format!("00-{TRACE}-b7ad6b7169203331-01"), None).expect("a trace");
        assert_eq!(trace.child([0; 8]), format!("00-{TRACE}-0000000000000001-01"));
    }

    #[test]
    fn a_state_has_up_to_32_members_and_512_characters() {
        let many = |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        let long = |chars: usize| format!("a={},b={}", "x".repeat(256), "y".repeat(chars - 261));
        for good in ["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "a=b", "1a@b-c_d*e/f=x y;z", &many(32), &long(512)] {
            assert_eq!(state_of(good).as_deref(), Some(good));
        }
        assert_eq!(
            state_of("a=1 ,\t, b=2,").as_deref(),
            Some("a=1,b=2"),
            "empty members and outer spaces are left out"
        );
        let (too_many, too_long, long_value) = (many(33), long(513), format!("a={}", "x".repeat(257)));
        for bad in
            ["", ",", "a", "a=", "=b", "a=b=c", "A=b", "1a=b", "a@1=b", "a@b@c=d", "a b=c", "a=é", "a=b\u{7f}", "a=b,c"]
                .into_iter()
                .chain([too_many.as_str(), too_long.as_str(), long_value.as_str()])
        {
            assert_eq!(state_of(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_column_that_holds_something_else_is_no_trace() {
        assert_eq!(TraceContext::from_column("nothing"), None);
        assert_eq!(TraceContext::from_column(""), None);
    }

    proptest! {
        #[test]
        fn what_is_stored_is_read_again(id in "[0-9a-f]{32}", state in "[a-z0-9@=, ]{0,40}", span: [u8; 8]) {
            let sent = format!("00-{id}-b7ad6b7169203331-01");
            if let Some(trace) = TraceContext::parse(&sent, Some(&state)) {
                let stored = TraceContext::from_column(trace.column());
                prop_assert_eq!(stored.as_ref(), Some(&trace));
                // A child is a parent again.
                prop_assert!(TraceContext::parse(&trace.child(span), trace.state()).is_some());
            }
        }

        #[test]
        fn no_text_is_too_strange(parent in any::<String>(), state in any::<String>()) {
            prop_assert!(TraceContext::parse(&parent, Some(&state)).is_none_or(|trace| !trace.column().is_empty()));
        }
    }
}
