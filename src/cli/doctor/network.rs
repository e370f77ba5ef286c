//! The network: name servers, the proxy, the addresses that connections come from, the authorities that TLS trusts, and
//! the address at which people reach the server.

use std::sync::Arc;

use super::finding::{Context, Finding};
use crate::domain::url::Environment;
use crate::egress::{ServerAnswer, ask_each, check_sources, look_at_proxy};
use crate::store::Database;

const DNS: &str = "dns";
const PROXY: &str = "proxy";
const SOURCE: &str = "source";
const TLS: &str = "tls";
const PUBLIC_URL: &str = "public_url";

/// Asks each name server, and says how long it took.
pub(super) async fn name_servers(context: Arc<Context>) -> Vec<Finding> {
    let servers = &context.config.dns_servers;
    let name = context.name.clone().or_else(|| host_of(context.config.public_url.as_deref()));
    let answers = ask_each(servers, name.as_deref()).await;
    let from = if servers.is_empty() { "/etc/resolv.conf" } else { "egress.dns_servers" };
    judged_answers(&answers, name.as_deref(), from)
}

/// The host of an origin, where it is a name.
fn host_of(origin: Option<&str>) -> Option<String> {
    let url = url::Url::parse(origin?).ok()?;
    url.domain().map(str::to_owned)
}

fn judged_answers(answers: &[ServerAnswer], name: Option<&str>, from: &str) -> Vec<Finding> {
    let asked = name.map_or_else(|| "the servers of the root".to_owned(), |name| format!("addresses of {name}"));
    // Attempts go on with the next server.
    let all_fail = answers.iter().all(|answer| answer.answer.is_err());
    let judge = |ServerAnswer { server, answer, took }: &ServerAnswer| {
        let asked = format!("{server} of {from}, asked for {asked}");
        match answer {
            Err(reason) => {
                let found = format!("{asked}: {reason}");
                let advice = "name servers that answer in egress.dns_servers, and let UDP and TCP to port 53 through";
                if all_fail { Finding::problem(DNS, found, advice) } else { Finding::warning(DNS, found, advice) }
            }
            Ok(0) => {
                let advice = "look whether it resolves names of the Internet; --name asks for another";
                Finding::warning(DNS, format!("{asked}: none found"), advice)
            }
            Ok(records) => Finding::ok(DNS, format!("{asked}: {records} found in {} ms", took.as_millis())),
        }
    };
    if answers.is_empty() {
        let advice = "name one in egress.dns_servers";
        return vec![Finding::problem(DNS, format!("{from} names no server that can be asked"), advice)];
    }
    answers.iter().map(judge).collect()
}

/// Checks whether the proxy can be reached and takes the credentials.
pub(super) async fn proxy(context: Arc<Context>) -> Vec<Finding> {
    let Some(proxy) = &context.config.proxy else { return vec![Finding::ok(PROXY, "egress.proxy names none")] };
    let named = format!("{}:{}", proxy.host, proxy.port);
    match look_at_proxy(proxy, context.config.source_addresses).await {
        Ok(()) => vec![Finding::ok(PROXY, format!("{named} answers"))],
        Err(fault) => {
            let advice = "correct the host, the port, the user and the password in egress.proxy, or start the proxy";
            vec![Finding::problem(PROXY, format!("{named}: {fault}"), advice)]
        }
    }
}

/// Looks whether this machine has the addresses that connections to receivers come from.
pub(super) fn source_addresses(Context { config, .. }: &Context) -> Vec<Finding> {
    let named: Vec<String> = config.source_addresses.all().map(|address| address.to_string()).collect();
    let finding = match check_sources(config.source_addresses) {
        Err((address, error)) => {
            let found = format!("cannot send from {address} of egress.source_address: {error}");
            Finding::problem(SOURCE, found, "name an address that this machine has, or give the machine this one")
        }
        Ok(()) if named.is_empty() => Finding::ok(SOURCE, "egress.source_address names none: the system chooses"),
        Ok(()) => Finding::ok(SOURCE, format!("this machine has {}", named.join(" and "))),
    };
    vec![finding]
}

/// Reads the authorities that connections to receivers trust.
pub(super) async fn authorities(context: Arc<Context>) -> Vec<Finding> {
    let read = tokio::task::spawn_blocking(crate::tls::roots).await;
    let Ok(roots) = read else {
        return vec![Finding::problem(TLS, "the check has panicked", "please report it")];
    };
    let named = ["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().filter(|name| std::env::var_os(name).is_some());
    let named: Vec<_> = named.collect();
    let (built_in, of_system) = (roots.built_in, roots.of_system);
    let from = if named.is_empty() { "the system".to_owned() } else { named.join(" and ") };
    let found = format!("{built_in} authorities are built in, {of_system} come from {from}");
    let advice = "install ca-certificates, or correct SSL_CERT_FILE and SSL_CERT_DIR";
    let faults = roots.faults.join("; ");
    let database_needs_them = matches!(&context.config.database, Database::Postgres(url) if url.trusts_system_alone());
    if built_in + of_system == 0 || (database_needs_them && of_system == 0) {
        vec![Finding::problem(TLS, format!("{found} {faults}"), advice)]
    } else if !faults.is_empty() || (!named.is_empty() && of_system == 0) {
        vec![Finding::warning(TLS, format!("{found}; not all can be read: {faults}"), advice)]
    } else {
        vec![Finding::ok(TLS, found)]
    }
}

/// Whether links lead to where people reach the server, over TLS.
pub(super) fn public_url(Context { config, .. }: &Context) -> Vec<Finding> {
    let advice = "set it to the origin at which people reach this server, such as https://hooks.example.com";
    let finding = match &config.public_url {
        _ if config.environment == Environment::Development => {
            Finding::ok(PUBLIC_URL, "it is not needed in development")
        }
        _ if !config.roles.api => Finding::ok(PUBLIC_URL, "it is not needed without the role api"),
        None => Finding::warning(PUBLIC_URL, "it is not set: links have the host that the request names", advice),
        Some(url) if url.starts_with("https://") => Finding::ok(PUBLIC_URL, format!("it is {url}")),
        Some(url) => Finding::warning(PUBLIC_URL, format!("{url} is without TLS: passwords cross the network"), advice),
    };
    vec![finding]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::doctor::finding::Status;

    fn answers(of: &[Result<usize, String>]) -> Vec<ServerAnswer> {
        let server = "192.0.2.53:53".parse().expect("an address");
        of.iter().map(|answer| ServerAnswer { server, answer: answer.clone(), took: Duration::ZERO }).collect()
    }

    #[test]
    fn one_name_server_that_answers_is_enough_and_none_is_a_problem() {
        let silent = || Err("no answer".to_owned());
        for (of, expected) in [
            (vec![Ok(2)], vec![Status::Ok]),
            (vec![Ok(2), silent()], vec![Status::Ok, Status::Warning]),
            (vec![silent(), silent()], vec![Status::Problem, Status::Problem]),
            (vec![Ok(0)], vec![Status::Warning]),
            (vec![], vec![Status::Problem]),
        ] {
            let found = judged_answers(&answers(&of), None, "egress.dns_servers");
            assert!(found.iter().map(|finding| finding.status).eq(expected), "{of:?}");
        }
    }

    #[test]
    fn the_host_of_an_address_is_no_name_to_ask_for() {
        assert_eq!(host_of(Some("https://hooks.acme.example:8443")).as_deref(), Some("hooks.acme.example"));
        assert_eq!(host_of(Some("https://192.0.2.1")), None);
        assert_eq!(host_of(None), None);
    }
}
