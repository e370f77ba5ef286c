//! People: who signs in, and what each of them may do.

use std::fmt;

use super::id::{AccountId, AccountKey, UserId};
use super::permission::{Permission, Permissions};
use super::time::Timestamp;

/// Longest address (RFC 5321, section 4.5.3.1.3, without the angle brackets).
pub const MAX_EMAIL_CHARS: usize = 254;

/// Fewest characters of a password (NIST SP 800-63B, section 5.1.1.2, asks for 8).
pub const MIN_PASSWORD_CHARS: usize = 10;

/// Most: a longer one costs time and adds nothing.
pub const MAX_PASSWORD_CHARS: usize = 256;

/// What a user is to the account, or to the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Everything within the account.
    Owner,
    /// Works with webhooks and events.
    Developer,
    /// Looks.
    Viewer,
    /// The server's own people: every account, the catalog. Such a user belongs to no account.
    Operator,
}

impl Role {
    /// Those of an account's users.
    pub const OF_ACCOUNT: [Self; 3] = [Self::Owner, Self::Developer, Self::Viewer];

    /// The name, as the API writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Developer => "developer",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
        }
    }

    /// Reads a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::OF_ACCOUNT.into_iter().chain([Self::Operator]).find(|role| role.name() == name)
    }

    /// What it allows.
    pub fn permissions(self) -> Permissions {
        use Permission as P;
        let looks = [P::WebhooksRead, P::EventsRead, P::EventTypesRead, P::AccountsRead];
        let works =
            [P::WebhooksCreate, P::WebhooksUpdate, P::WebhooksDelete, P::EventsCreate, P::ApiKeysRead, P::AuditRead];
        match self {
            Self::Owner | Self::Operator => Permissions::all(),
            Self::Developer => looks.into_iter().chain(works).collect(),
            Self::Viewer => looks.into_iter().collect(),
        }
    }
}

/// An e-mail address in lowercase, by which a person signs in. A person may have a user in each of several accounts.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Email(String);

impl Email {
    /// Reads an address: something before and after one `@`, without spaces. Whether it exists only mail would tell.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_lowercase();
        let (local, domain) = text.rsplit_once('@')?;
        let plain = |c: char| !c.is_whitespace() && !c.is_control() && !is_invisible(c) && !"<>()[],;:\\\"".contains(c);
        let fits = text.chars().count() <= MAX_EMAIL_CHARS && !local.is_empty() && !domain.is_empty();
        let shaped = !local.contains('@') && !domain.starts_with(['.', '-']) && !domain.ends_with(['.', '-']);
        let is_right = fits && shaped && text.chars().all(plain);
        is_right.then_some(Self(text))
    }

    /// The address.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Characters that change a text and do not show: by them two addresses could look like one.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A person who signs in, without what they sign in with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// The id outside.
    pub id: UserId,
    /// The account that they belong to; operators belong to none.
    pub account: Option<(AccountId, AccountKey)>,
    /// Their address.
    pub email: Email,
    /// What they are.
    pub role: Role,
    /// Whether they have accepted their invitation: until then there is no password.
    pub joined: bool,
    /// Whether signing in takes a second factor.
    pub two_factor: bool,
    /// Until when an invitation, the first or one to set a new password, can be used.
    pub invited_until: Option<Timestamp>,
    /// When somebody else turned off their second factor; `None` once they were told of it.
    pub factor_reset_at: Option<Timestamp>,
    /// When they last signed in.
    pub last_sign_in_at: Option<Timestamp>,
    /// When they were invited or made.
    pub created_at: Timestamp,
    /// When they were last changed.
    pub updated_at: Timestamp,
}

/// What somebody sees who comes by a portal link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortalLink {
    /// The id outside.
    pub id: super::id::PortalLinkId,
    /// The account whose pages it opens.
    pub account: AccountId,
    /// What it allows.
    pub permissions: Permissions,
    /// The name at the top, in place of ours.
    pub brand: Option<String>,
    /// The colour of what can be pressed.
    pub color: Option<Color>,
    /// Sites that may show it in a frame.
    pub frame_origins: Vec<String>,
    /// After this it is dead.
    pub expires_at: Timestamp,
    /// When it was first opened.
    pub opened_at: Option<Timestamp>,
}

/// A colour, `#rrggbb`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Color(pub [u8; 3]);

impl Color {
    /// Reads `#rrggbb` in either case.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 3];
        hex::decode_to_slice(text.strip_prefix('#')?, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// The nearest shade of this colour that can be read on white (or, with `dark`, on near black): a contrast of at
    /// least 4.5 to 1 (WCAG 2.2, success criterion 1.4.3).
    #[must_use]
    pub fn readable(self, dark: bool) -> Self {
        let ground = if dark { Self([0x1e, 0x1b, 0x16]) } else { Self([0xff, 0xff, 0xff]) };
        let goal = if dark { 255 } else { 0 };
        let shade = |step: u32| Self(self.0.map(|channel| mix(channel, goal, step)));
        (0..=STEPS).map(shade).find(|shade| shade.contrast(ground) >= 4.6).unwrap_or(shade(STEPS))
    }

    /// Black or white, whichever is read better on this colour.
    #[must_use]
    pub fn ink(self) -> Self {
        let (black, white) = (Self([0x14, 0x12, 0x0e]), Self([0xff, 0xff, 0xff]));
        if self.contrast(white) >= self.contrast(black) { white } else { black }
    }

    fn contrast(self, other: Self) -> f64 {
        let (a, b) = (self.luminance(), other.luminance());
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    fn luminance(self) -> f64 {
        let linear = |channel: u8| {
            let share = f64::from(channel) / 255.0;
            if share <= 0.040_45 { share / 12.92 } else { ((share + 0.055) / 1.055).powf(2.4) }
        };
        let [red, green, blue] = self.0.map(linear);
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    }
}

const STEPS: u32 = 50;

/// `step` of [`STEPS`] on the way from one value to another.
fn mix(from: u8, to: u8, step: u32) -> u8 {
    let mixed = (u32::from(from) * (STEPS - step) + u32::from(to) * step) / STEPS;
    u8::try_from(mixed).unwrap_or(to)
}

impl fmt::Display for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", hex::encode(self.0))
    }
}

/// Reads a site that may hold a portal in a frame: `https://host` or, for trying it, `http://localhost`, with a port or
/// without.
pub fn parse_origin(text: &str) -> Option<String> {
    let url = ::url::Url::parse(text).ok()?;
    // What stands between the parts of a policy would say more than a site, and a star every site.
    let plain = |host: &&str| host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-[]:".contains(&b));
    let host = url.host_str().filter(plain)?;
    let local = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    let secure = url.scheme() == "https" || url.scheme() == "http" && local;
    let origin = url.origin().ascii_serialization();
    (secure && text.trim_end_matches('/').eq_ignore_ascii_case(&origin)).then_some(origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_at_and_no_spaces_and_is_read_in_lowercase() {
        assert_eq!(Email::parse(" Ana@Example.COM ").expect("an address").as_str(), "ana@example.com");
        for wrong in [
            "",
            "ana",
            "@example.com",
            "ana@",
            "a b@example.com",
            "a@b@example.com",
            "a@.com",
            "a\n@example.com",
            "a\u{200b}@example.com",
        ] {
            assert_eq!(Email::parse(wrong), None, "{wrong:?}");
        }
        assert_eq!(Email::parse(&format!("{}@example.com", "a".repeat(250))), None);
    }

    #[test]
    fn a_developer_covers_a_viewer_and_an_owner_covers_both() {
        let [owner, developer, viewer] = Role::OF_ACCOUNT.map(Role::permissions);
        assert!(owner.covers(developer) && developer.covers(viewer) && !viewer.covers(developer));
        assert!(!developer.allows(Permission::ApiKeysWrite) && !developer.allows(Permission::UsersRead));
        for role in Role::OF_ACCOUNT {
            assert_eq!(Role::parse(role.name()), Some(role));
        }
    }

    #[test]
    fn whatever_colour_is_chosen_can_be_read_in_light_and_dark() {
        for color in ["#ffffff", "#000000", "#ffee00", "#0000ff", "#7f7f7f", "#ff0000"] {
            let color = Color::parse(color).expect("a colour");
            assert!(color.readable(false).contrast(Color([255; 3])) >= 4.5, "{color}");
            assert!(color.readable(true).contrast(Color([0x1e, 0x1b, 0x16])) >= 4.5, "{color}");
            assert!(color.ink().contrast(color) >= 4.5, "{color}");
        }
        assert_eq!(Color::parse("#12345"), None);
        assert_eq!(Color::parse("red"), None);
    }

    #[test]
    fn only_an_origin_may_hold_a_portal_in_a_frame() {
        assert_eq!(parse_origin("https://app.example.com/").as_deref(), Some("https://app.example.com"));
        assert_eq!(parse_origin("https://app.example.com:8443").as_deref(), Some("https://app.example.com:8443"));
        assert_eq!(parse_origin("http://localhost:3000").as_deref(), Some("http://localhost:3000"));
        for wrong in [
            "http://app.example.com",
            "https://*",
            "https://a.example/path",
            "data:text/html,x",
            "*",
            "https://a b",
            "https://a.example;sandbox",
            "https://a.example,b.example",
            "https://a\"b.example",
            "https://$!.example",
        ] {
            assert_eq!(parse_origin(wrong), None, "{wrong}");
        }
    }
}
