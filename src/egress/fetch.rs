//! Requests of a command to the server that an operator names, such as the sender that an import reads from. That
//! server may be in the operator's own network, so the guard is not asked. What the server sends is bounded.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::connector::{Connection, handshake, server_name};
use super::tls;
use crate::clock::{Clock as _, SystemClock};
use crate::domain::retry::parse_retry_after;
use crate::domain::url::{Environment, Host, ReceiverUrl};

/// Largest answer, in bytes: a page of 250 event types whose schemas have 64 KiB.
const MAX_ANSWER: usize = 16 << 20;

/// How long a request may take, from the look-up of the name to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Reads from one server, over one connection that is kept.
pub struct Fetcher {
    base: ReceiverUrl,
    authorization: HeaderValue,
    tls: TlsConnector,
    connection: Option<Connection>,
}

/// An answer, read to its end.
pub struct FetchedAnswer {
    /// The status.
    pub status: u16,
    /// How long to wait before the next request, where the server says so.
    pub retry_after: Option<Duration>,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no answer. Nothing in it is secret.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The URL is not valid, or would show a password.
    #[error("the URL must be http:// or https:// with a host, without user info, query and fragment")]
    Url,
    /// The token cannot stand in a header.
    #[error("the token must be visible ASCII characters")]
    Token,
    /// No connection.
    #[error("cannot connect to {server}: {reason}")]
    Connect {
        /// The host and the port.
        server: String,
        /// In words.
        reason: String,
    },
    /// The connection broke, or what came is no HTTP/1.1.
    #[error("the connection to {server} broke: {reason}")]
    Broken {
        /// The host and the port.
        server: String,
        /// In words.
        reason: String,
    },
    /// The answer did not end in time.
    #[error("{server} did not answer within {} seconds", TIMEOUT.as_secs())]
    TimedOut {
        /// The host and the port.
        server: String,
    },
    /// The answer is larger than is read.
    #[error("the answer of {server} is larger than {} MiB", MAX_ANSWER >> 20)]
    TooLarge {
        /// The host and the port.
        server: String,
    },
}

impl Fetcher {
    /// Reads from the server at this URL, below its path, with a bearer token (RFC 6750).
    pub fn new(url: &str, token: &str) -> Result<Self, FetchError> {
        let base = ReceiverUrl::parse(url, Environment::Development).map_err(|_| FetchError::Url)?;
        if url.contains(['?', '#']) {
            return Err(FetchError::Url);
        }
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(FetchError::Token);
        }
        let mut authorization = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| FetchError::Token)?;
        authorization.set_sensitive(true);
        Ok(Self { base, authorization, tls: TlsConnector::from(Arc::new(tls::config())), connection: None })
    }

    /// Whether others on the network can read the token and the answers.
    pub fn is_in_clear(&self) -> bool {
        let is_near = match &self.base.host {
            Host::Name(_) => self.base.host.is_localhost(),
            Host::Address(address) => address.to_canonical().is_loopback(),
        };
        !self.base.https && !is_near
    }

    /// Reads the answer to a `GET` of this path and query.
    pub async fn get(&mut self, path: &str) -> Result<FetchedAnswer, FetchError> {
        let server = self.base.authority.clone();
        let target = format!("{}{path}", self.base.target.trim_end_matches('/'));
        let answered = tokio::time::timeout(TIMEOUT, Box::pin(self.exchange(&target))).await;
        answered.map_err(|_| FetchError::TimedOut { server })?
    }

    async fn exchange(&mut self, target: &str) -> Result<FetchedAnswer, FetchError> {
        if let Some(mut connection) = self.connection.take()
            && connection.is_usable()
        {
            match self.send(connection, target).await {
                // The server had closed it. A new one may work.
                Err(FetchError::Broken { .. }) => {}
                answered => return answered,
            }
        }
        let connection = self.connect().await?;
        self.send(connection, target).await
    }

    #[expect(clippy::disallowed_methods, reason = "the operator names the server, which may be in their own network")]
    async fn connect(&self) -> Result<Connection, FetchError> {
        let failed = |error: &dyn std::fmt::Display| FetchError::Connect {
            server: self.base.authority.clone(),
            reason: error.to_string(),
        };
        let port = self.base.port;
        let tcp = match &self.base.host {
            Host::Name(name) => TcpStream::connect((name.as_str(), port)).await,
            Host::Address(address) => TcpStream::connect((*address, port)).await,
        };
        let tcp = tcp.map_err(|error| failed(&error))?;
        tcp.set_nodelay(true).map_err(|error| failed(&error))?;
        if !self.base.https {
            return handshake(tcp).await.map_err(|error| failed(&error));
        }
        let name = server_name(&self.base.host).ok_or_else(|| failed(&"the host cannot be named in TLS"))?;
        let stream = self.tls.connect(name, tcp).await.map_err(|error| failed(&error))?;
        handshake(stream).await.map_err(|error| failed(&error))
    }

    /// Sends over this connection, and keeps the connection after the end of the answer.
    async fn send(&mut self, mut connection: Connection, target: &str) -> Result<FetchedAnswer, FetchError> {
        let server = self.base.authority.clone();
        let broken = |error: hyper::Error| FetchError::Broken { server: server.clone(), reason: in_words(&error) };
        let request = self.request(target)?;
        let Connection { sender, driver, allowance, .. } = &mut connection;
        driver.run(sender.ready()).await.map_err(broken)?;
        allowance.await_answer();
        let response = driver.run(sender.send_request(request)).await.map_err(broken)?;
        allowance.lift();
        let status = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|value| parse_retry_after(value, SystemClock.now()));
        let body = driver.run(read_body(response.into_body())).await.map_err(broken)?;
        let body = body.ok_or(FetchError::TooLarge { server })?;
        self.connection = Some(connection);
        Ok(FetchedAnswer { status, retry_after, body })
    }

    fn request(&self, target: &str) -> Result<Request<Full<Bytes>>, FetchError> {
        Request::builder()
            .uri(target)
            .header(HOST, &self.base.authority)
            .header(USER_AGENT, concat!("Aldaba/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .header(AUTHORIZATION, &self.authorization)
            .body(Full::new(Bytes::new()))
            .map_err(|_| FetchError::Url)
    }
}

/// Reads a body to its end; `None` where it is larger than [`MAX_ANSWER`].
async fn read_body(mut incoming: Incoming) -> hyper::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    while let Some(frame) = incoming.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if data.len() > MAX_ANSWER - body.len() {
            return Ok(None);
        }
        body.extend_from_slice(&data);
    }
    Ok(Some(body))
}

/// What hyper says, and why.
fn in_words(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_or_a_token_that_cannot_be_sent_is_refused_and_not_repeated() {
        for url in ["", "svix", "ftp://svix.example", "https://token@svix.example", "https://svix.example/?a=hidden"] {
            let refused = Fetcher::new(url, "token").err().expect(url).to_string();
            assert!(refused.starts_with("the URL must be") && !refused.contains("hidden"), "{refused}");
        }
        for token in ["", "two words", "hidden\n", "ñ"] {
            let refused = Fetcher::new("http://svix.example", token).err().expect(token).to_string();
            assert_eq!(refused, "the token must be visible ASCII characters");
        }
        assert!(Fetcher::new("http://127.0.0.1:8071/svix/", "token").is_ok());
    }
}
