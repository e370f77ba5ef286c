//! Channels: names that an event carries, by which endpoints choose among events beside their types.

/// Most channels of an endpoint.
pub const MAX_ENDPOINT_CHANNELS: usize = 10;

/// Most channels of an event.
pub const MAX_EVENT_CHANNELS: usize = 5;

/// Longest channel, in characters.
pub const MAX_CHANNEL_CHARS: usize = 128;

/// What a channel looks like, as a regular expression.
pub const CHANNEL_PATTERN: &str = "^[A-Za-z0-9._:-]{1,128}$";

/// Channels of an endpoint or of an event: distinct, in the order given, at least one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Channels(Vec<String>);

impl Channels {
    /// `None` where there is no channel, more than `most`, a repeated one, or one that is not allowed.
    pub fn parse(names: Vec<String>, most: usize) -> Option<Self> {
        let is_new = |(at, name): (usize, &String)| !names[..at].contains(name);
        let fits = (1..=most).contains(&names.len())
            && names.iter().all(|name| is_channel(name))
            && names.iter().enumerate().all(is_new);
        fits.then_some(Self(names))
    }

    /// What was parsed before it was stored.
    pub fn stored(names: Vec<String>) -> Self {
        Self(names)
    }

    /// The channels.
    pub fn names(&self) -> &[String] {
        &self.0
    }
}

fn is_channel(name: &str) -> bool {
    (1..=MAX_CHANNEL_CHARS).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))
}

/// Whether an endpoint with these channels wants an event with those. Without channels it wants every event.
pub fn wants(endpoint: Option<&Channels>, event: Option<&Channels>) -> bool {
    endpoint.is_none_or(|wanted| event.is_some_and(|carried| carried.0.iter().any(|name| wanted.0.contains(name))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channels(names: &[&str]) -> Option<Channels> {
        Channels::parse(names.iter().map(|name| (*name).to_owned()).collect(), 3)
    }

    #[test]
    fn channels_are_few_distinct_and_of_letters_digits_and_some_marks() {
        let longest = "a".repeat(128);
        for good in [&["a"][..], &["Tenant:7", "eu-west.1_b"], &["a", "A", "b"], &[longest.as_str()]] {
            assert_eq!(channels(good).expect("allowed").names(), good);
        }
        let too_long = "a".repeat(129);
        for bad in
            [&[][..], &[""], &["a", "b", "a"], &["a", "b", "c", "d"], &["a b"], &["ñ"], &["a\n"], &[too_long.as_str()]]
        {
            assert_eq!(channels(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_endpoint_with_channels_wants_what_carries_one_of_them() {
        let (none, a, ab, bc, d) =
            (None, channels(&["a"]), channels(&["a", "b"]), channels(&["b", "c"]), channels(&["d"]));
        for (endpoint, event, wanted) in [
            (&none, &none, true),
            (&none, &a, true),
            (&a, &none, false),
            (&a, &a, true),
            (&ab, &bc, true),
            (&bc, &ab, true),
            (&a, &bc, false),
            (&d, &ab, false),
        ] {
            assert_eq!(wants(endpoint.as_ref(), event.as_ref()), wanted, "{endpoint:?} {event:?}");
        }
    }
}
