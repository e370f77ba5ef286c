//! The style sheets, scripts and drawings of the pages, and the stamp by which browsers know a new version of them.

use std::sync::LazyLock;

use ring::digest;

/// The style sheet of the reference.
pub const STYLE: &str = include_str!("assets/style.css");

/// The script of the reference.
pub const SCRIPT: &str = include_str!("assets/docs.js");

/// The icon of all pages.
pub const ICON: &str = include_str!("assets/icon.svg");

/// The style sheet of the dashboard.
pub const DASHBOARD_STYLE: &str = include_str!("dashboard/assets/dashboard.css");

/// The script of the dashboard.
pub const DASHBOARD_SCRIPT: &str = include_str!("dashboard/assets/dashboard.js");

/// Changes with what the browser may keep, so that it can be kept for ever.
pub static STAMP: LazyLock<String> = LazyLock::new(|| {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [STYLE, SCRIPT, ICON, DASHBOARD_STYLE, DASHBOARD_SCRIPT, env!("CARGO_PKG_VERSION")] {
        context.update(part.as_bytes());
    }
    hex::encode(&context.finish().as_ref()[..6])
});
