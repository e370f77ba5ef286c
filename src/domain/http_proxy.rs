//! The HTTP proxy that connections to receivers go through, as the setting `egress.proxy` names it.

use percent_encoding::percent_decode_str;

use super::authentication::basic;
use super::credential::Credential;
use super::url::{Environment, Host, ReceiverUrl};

/// A proxy that takes CONNECT (RFC 9110, section 9.3.6).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpProxy {
    /// Its host, a name or an address.
    pub host: Host,
    /// Its TCP port.
    pub port: u16,
    /// The value of `Proxy-Authorization`, where it asks for credentials.
    pub authorization: Option<Credential>,
}

impl HttpProxy {
    /// Reads `http://USER:PASSWORD@HOST:PORT`. The user and the password are percent-encoded, and may be missing.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("http://")?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user_info, authority) = match rest.rsplit_once('@') {
            Some((user_info, authority)) => (Some(user_info), authority),
            None => (None, rest),
        };
        // The port is always given, because proxies have no usual one.
        let (_, port) = authority.rsplit_once(':')?;
        if port.parse::<u16>().is_err() || authority.contains(['/', '?', '#']) {
            return None;
        }
        let url = ReceiverUrl::parse(&format!("http://{authority}/"), Environment::Development).ok()?;
        let authorization = match user_info {
            Some(user_info) => Some(authorization(user_info)?),
            None => None,
        };
        Some(Self { host: url.host, port: url.port, authorization })
    }
}

/// Neither part may have control characters, and a colon ends the user (RFC 7617, section 2).
fn authorization(user_info: &str) -> Option<Credential> {
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let decode = |part: &str| {
        let decoded = percent_decode_str(part).decode_utf8().ok()?.into_owned();
        (!decoded.contains(char::is_control)).then_some(decoded)
    };
    let user = decode(user).filter(|user| !user.is_empty() && !user.contains(':'))?;
    Some(basic(&user, &decode(password)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, u16, Option<String>) {
        let proxy = HttpProxy::parse(text).expect(text);
        let authorization = proxy.authorization.as_ref().map(|value| value.reveal().to_owned());
        (proxy.host.to_string(), proxy.port, authorization)
    }

    #[test]
    fn a_proxy_is_a_host_and_a_port_with_or_without_credentials() {
        for (text, host, port) in [
            ("http://squid:3128", "squid", 3128),
            ("http://Proxy.Acme.example:80/", "proxy.acme.example", 80),
            ("http://192.0.2.7:8888", "192.0.2.7", 8888),
            ("http://[2001:db8::7]:8888/", "[2001:db8::7]", 8888),
        ] {
            assert_eq!(parsed(text), (host.to_owned(), port, None), "{text}");
        }
        // The example of RFC 7617, section 2.
        let basic = Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==".to_owned());
        assert_eq!(parsed("http://Aladdin:open%20sesame@squid:3128"), ("squid".into(), 3128, basic));
        // `a:p@s:s/` and `a:`
        assert_eq!(parsed("http://a:p%40s%3As%2F@squid:3128").2, Some("Basic YTpwQHM6cy8=".into()));
        assert_eq!(parsed("http://a@squid:3128").2, Some("Basic YTo=".into()));
    }

    #[test]
    fn what_names_no_proxy_is_refused() {
        for text in [
            "",
            "squid:3128",
            "https://squid:3128",
            "socks5://squid:1080",
            "http://squid",
            "http://squid:0",
            "http://squid:65536",
            "http://squid:3128/path",
            "http://squid:3128?query",
            "http://squid#:3128",
            "http://squid/a:80",
            "http://a b:3128",
            "http://:3128",
            "http://::1:3128",
            "http://@squid:3128",
            "http://:password@squid:3128",
            "http://a%3Ab:password@squid:3128",
            "http://a:pass%0D%0Aword@squid:3128",
            "http://a:%FF@squid:3128",
        ] {
            assert_eq!(HttpProxy::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_proxy_prints_without_its_credentials() {
        let printed = format!("{:?}", HttpProxy::parse("http://somebody:hidden@squid:3128"));
        assert!(printed.contains("squid") && printed.contains("[redacted]"), "{printed}");
        assert!(!printed.contains("hidden") && !printed.contains("somebody"), "{printed}");
    }
}
