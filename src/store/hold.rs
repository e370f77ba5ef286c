//! The hold of all deliveries: its row, which both stores write, and how a process learns of it.

use super::inbox::{Inbox, Nudge};
use super::view::View;
use crate::domain::time::Timestamp;

/// The row of `settings` with the time at which the hold began. Without the row there is no hold.
pub(super) const ROW: &str = "on_hold";

/// The version of the oldest program that sends nothing while deliveries are on hold.
pub(super) const REQUIRES: i64 = 22;

/// In the audit log: what was put on hold.
pub(super) const RESOURCE: &str = "all";

/// Notes in the view since when deliveries are on hold. A process that delivers logs it, and looks for due deliveries
/// when the hold has ended.
pub(super) fn show(view: &View, inbox: Option<&Inbox>, since: Option<Timestamp>) {
    let before = view.on_hold_since();
    view.show_hold(since);
    let Some(inbox) = inbox.filter(|_| before != since) else { return };
    match since {
        Some(since) => tracing::warn!(%since, "deliveries are on hold: nothing is sent until `aldaba resume`"),
        None => tracing::info!("the hold has ended: deliveries are sent again"),
    }
    inbox.send(Nudge::Rescan);
}
