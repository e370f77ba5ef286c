//! Deliveries over TLS to receivers of the benchmark's own, beside the same without TLS: to one endpoint, and to 1,000
//! names on one address. Each name has connections of its own, with TLS and without.
//!
//! What is measured are connections that are kept: each endpoint has had events before the clock starts. TLS then costs
//! the encryption of requests and answers, on both sides of this machine. The last figure is the share of handshakes
//! that resume a session, when all receivers have closed their connections and each name is sent an event again.

use anyhow::ensure;

use super::Plan;
use super::rates::{Crowd, SETTINGS, deliver, server};
use crate::certificates::DOMAIN;
use crate::figure::{Figure, Rate, Unit};
use crate::receiver::{Handshakes, Mode, Receiver};
use crate::server::Server;

/// Each part has a server of its own: idle connections of one part would take room in the pool from another.
pub async fn run(plan: Plan, name: &'static str) -> anyhow::Result<Vec<Figure>> {
    let without = deliver(&server()?, plan, plan.requests, 1).await?;
    let mut figures = Vec::new();
    for (endpoints, what) in [(1, "one endpoint"), (if plan.quick { 50 } else { 1_000 }, "1,000 names")] {
        let server = Server::start_for_tls(SETTINGS)?;
        let receiver = Receiver::start_tls(plan.keep(), server.acceptor()?).await?;
        let crowd = names(&server, receiver, "https", endpoints).await?;
        let rate = kept(&crowd, &server, plan, endpoints).await?;
        let rate_of = format!("deliveries over TLS on kept connections, {what}");
        figures.push(Figure::new(name, &rate_of, Unit::PerSecond, rate.per_second));
        let cost_of = format!("{rate_of}: the server's time on a core for each");
        figures.push(Figure::new(name, &cost_of, Unit::Micros, rate.cost));
        let share_of = format!("over TLS, of one endpoint without it, {what}");
        figures.push(Figure::new(name, &share_of, Unit::Share, rate.per_second / without.per_second));
        if endpoints > 1 {
            let share = resumed(&crowd, &server, plan, endpoints).await?;
            figures.push(Figure::new(name, "handshakes that resume a session, 1,000 names", Unit::Share, share));
            let server = Server::start_for_tls(SETTINGS)?;
            let receiver = Receiver::start(Mode::Healthy, plan.keep()).await?;
            let crowd = names(&server, receiver, "http", endpoints).await?;
            let share = rate.per_second / kept(&crowd, &server, plan, endpoints).await?.per_second;
            figures.push(Figure::new(name, "over TLS, of 1,000 names without it", Unit::Share, share));
        }
    }
    Ok(figures)
}

/// Registers endpoints at this receiver, each with a host of its own.
async fn names(server: &Server, receiver: Receiver, scheme: &str, endpoints: usize) -> anyhow::Result<Crowd> {
    let port = receiver.address.port();
    let urls = (0..endpoints).map(|number| format!("{scheme}://n{number}.{DOMAIN}:{port}/")).collect();
    Crowd::at(server, receiver, urls).await
}

/// Deliveries after each endpoint has a connection.
async fn kept(crowd: &Crowd, server: &Server, plan: Plan, endpoints: usize) -> anyhow::Result<Rate> {
    let (events, before) = (plan.requests, (endpoints * 2).max(2_000));
    crowd.deliver(server, plan, before).await?;
    let handshakes = crowd.receiver.handshakes();
    let rate = crowd.deliver(server, plan, events).await?;
    let new = crowd.receiver.handshakes().since(handshakes).all();
    ensure!(new * 4 < events, "connections are kept: {new} new ones for {events} deliveries");
    Ok(rate)
}

/// The share of resumed handshakes while the receivers close each connection after its answer.
async fn resumed(crowd: &Crowd, server: &Server, plan: Plan, endpoints: usize) -> anyhow::Result<f64> {
    crowd.receiver.close_after_answers(true);
    let handshakes = crowd.receiver.handshakes();
    // An endpoint may have several connections, each of which is used once more.
    crowd.deliver(server, plan, endpoints * 10).await?;
    crowd.receiver.close_after_answers(false);
    let Handshakes { full, resumed } = crowd.receiver.handshakes().since(handshakes);
    ensure!(resumed > 0, "sessions are resumed: {full} full handshakes");
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    let share = resumed as f64 / (full + resumed) as f64;
    Ok(share)
}
