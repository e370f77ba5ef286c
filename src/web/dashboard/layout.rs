//! The layout around every page of the dashboard: the head of the document, the navigation, the signed-in user. Pages
//! before the sign-in have a narrow layout.

use maud::{DOCTYPE, Markup, html};

use super::page_context::PageContext;
use super::parts;
use crate::web::text::Locale;

/// What the layout of a page shows.
pub struct Layout<'a> {
    /// None on pages of those who are not signed in.
    pub cx: Option<&'a PageContext>,
    pub locale: Locale,
    pub title: &'a str,
    /// The entry of `nav` that the page belongs to.
    pub section: &'static str,
    /// The pages to go to: section, label, address.
    pub nav: &'a [(&'static str, String, String)],
    pub account_name: &'a str,
    /// The user's e-mail address, or nothing where nobody is signed in.
    pub who: &'a str,
    /// Our name, or the operator's in a portal.
    pub brand: &'a str,
    /// The address of a style sheet that sets `--accent` and `--accent-ink` and no more.
    pub theme: Option<&'a str>,
    /// The page's own address with its query.
    pub path: &'a str,
    /// Whether the page stands inside a page of the operator's.
    pub embedded: bool,
    /// Whether an operator is signed in.
    pub operator: bool,
    /// What the form to sign out contains.
    pub csrf: Markup,
    /// Changes when the assets do.
    pub stamp: &'a str,
}

/// The name that our own mark belongs to.
const OURS: &str = "Aldaba";

/// The drawings beside the entries, 20 by 20, as strokes.
const ICONS: &[(&str, &str)] = &[
    ("overview", "M3.5 3.5h5.5v7H3.5zM12 3.5h4.5v4H12zM12 10.5h4.5v6H12zM3.5 13.5h5.5v3H3.5z"),
    ("endpoints", "M2.5 10h9M8.5 6.5 12 10l-3.5 3.5M12 3.5h3a1.5 1.5 0 0 1 1.5 1.5v10a1.5 1.5 0 0 1-1.5 1.5h-3"),
    ("deliveries", "M17 3 9 11M17 3l-4.5 14L9 11 3 7.5z"),
    ("events", "M11 2.5 4.5 11.5H9l-1 6 6.5-9H10z"),
    ("replays", "M4.6 7.5A6.2 6.2 0 1 1 3.8 11M4.3 3.5v4h4"),
    (
        "event-types",
        "M7.5 3.5C5 3.5 5.5 6 5.5 7.5S5 10 3.5 10C5 10 5.5 11 5.5 12.5s-.5 4 2 4M12.5 3.5c2.5 0 2 2.5 2 4S15 10 16.5 \
         10c-1.5 0-2 1-2 2.5s.5 4-2 4",
    ),
    ("api-keys", "M3.5 13a3.3 3.3 0 1 0 6.6 0 3.3 3.3 0 0 0-6.6 0M9.2 10.7l7.3-7.2M13.2 6.8l2.3 2.3"),
    (
        "users",
        "M4.8 7a2.8 2.8 0 1 0 5.6 0 2.8 2.8 0 0 0-5.6 0M2.5 16.5c.3-3 2.4-4.5 5.1-4.5s4.8 1.5 5.1 4.5M13 4.5a2.7 2.7 0 \
         0 1 0 5M15 12.4c1.5.6 2.3 2 2.5 4.1",
    ),
    (
        "portal-links",
        "M8.5 11.5l3-3M9.5 6l1.7-1.7a3.2 3.2 0 0 1 4.5 4.5L14 10.5M10.5 14l-1.7 1.7a3.2 3.2 0 0 1-4.5-4.5L6 9.5",
    ),
    ("audit-log", "M5 2.5h7l3.5 3.5v11.5H5zM12 2.5V6h3.5M7.8 10h5M7.8 13.5h5"),
    ("accounts", "M4 17V3.5h7.5V17M11.5 8H16v9M2.5 17h15M6.8 7h2M6.8 10h2M6.8 13h2"),
];

/// The drawing of a section that has none.
const DOT: &str = "M7 10a3 3 0 1 0 6 0 3 3 0 0 0-6 0";

impl Layout<'_> {
    fn say(&self, english: &str) -> String {
        self.cx.map_or_else(|| self.locale.say(english), |cx| cx.say(english))
    }

    /// The page that the mark leads to.
    fn home(&self) -> &str {
        self.nav.first().map_or("/", |(_, _, href)| href)
    }
}

/// A page with the ways to the others beside it.
pub fn page(layout: &Layout<'_>, content: &Markup) -> Markup {
    let body = html! {
        a.skip href="#content" { (layout.say("Skip to the content")) }
        @if layout.embedded {
            nav.tabs aria-label=(layout.say("Main menu")) { (entries(layout, false)) }
        } @else {
            header.side {
                (brand(layout))
                input #menu type="checkbox";
                label.menu for="menu" { (icon("M3 6h14M3 10h14M3 14h14")) (layout.say("Menu")) }
                div.side-body {
                    @if !layout.account_name.is_empty() { p.account {
                        @if layout.operator { small { (layout.say("Operator")) } }
                        strong { (layout.account_name) }
                    } }
                    nav aria-label=(layout.say("Main menu")) { (entries(layout, true)) }
                    (session(layout))
                }
            }
        }
        main #content tabindex="-1" {
            (content)
            button.live type="button" hidden data-live-toggle data-on=(layout.say("Live · Pause"))
                data-off=(layout.say("Paused · Resume")) { (layout.say("Live · Pause")) }
        }
    };
    document(layout, if layout.embedded { "embedded" } else { "app" }, &body)
}

/// A page for one thing only: to sign in, to join.
pub fn narrow(layout: &Layout<'_>, content: &Markup) -> Markup {
    let body = html! {
        @if !layout.embedded { header { (brand(layout)) } }
        main #content.card { (content) }
        @if !layout.embedded { footer {
            (language(layout)) a href="/docs" { (layout.say("API reference")) }
        } }
    };
    document(layout, "narrow", &body)
}

fn document(layout: &Layout<'_>, class: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang=(layout.locale.code()) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (layout.title) " · " (layout.brand) }
                link rel="stylesheet" href={ "/assets/dashboard.css?" (layout.stamp) };
                @if let Some(theme) = layout.theme { link rel="stylesheet" href=(theme); }
                link rel="icon" href={ "/docs/assets/icon.svg?" (layout.stamp) } type="image/svg+xml";
                script src={ "/assets/dashboard.js?" (layout.stamp) } defer {}
            }
            body .(class) .themed[layout.theme.is_some()] data-clock=[layout.cx.map(parts::clock_words)] {
                (body)
                p #said.sr role="status" {}
            }
        }
    }
}

fn brand(layout: &Layout<'_>) -> Markup {
    html! { a.brand.ours[layout.brand == OURS] href=(layout.home()) {
        @if layout.brand != OURS { span.initial aria-hidden="true" { (initial(layout.brand)) } }
        (layout.brand)
    } }
}

/// What stands for a name where there is room for one letter.
fn initial(name: &str) -> String {
    name.trim().chars().next().map(|first| first.to_uppercase().to_string()).unwrap_or_default()
}

fn entries(layout: &Layout<'_>, drawn: bool) -> Markup {
    html! { ul { @for (section, label, href) in layout.nav { li {
        a href=(href) aria-current=[(*section == layout.section).then_some("page")] {
            @if drawn { (icon(drawing(section))) }
            (label)
        }
    } } } }
}

fn drawing(section: &str) -> &'static str {
    let name = section.replace('_', "-");
    ICONS.iter().find(|(known, _)| *known == name).map_or(DOT, |(_, strokes)| strokes)
}

fn icon(strokes: &str) -> Markup {
    html! { svg.icon aria-hidden="true" width="20" height="20" viewBox="0 0 20 20" { path d=(strokes) {} } }
}

fn session(layout: &Layout<'_>) -> Markup {
    html! { div.signed-in {
        @if !layout.who.is_empty() {
            p.who title=(layout.who) { (layout.who) }
            div.links {
                a href="/me" aria-current=[(layout.section == "me").then_some("page")] { (layout.say("Your account")) }
                form method="post" action="/sign-out" {
                    (layout.csrf) button.link type="submit" { (layout.say("Sign out")) }
                }
            }
        }
        div.links { a href="/docs" { (layout.say("API reference")) } (language(layout)) }
    } }
}

fn language(layout: &Layout<'_>) -> Markup {
    let other = layout.locale.other();
    html! {
        a.language href=(switched(layout.path, other.code())) hreflang=(other.code()) lang=(other.code()) {
            (other.own_name())
        }
    }
}

/// The same address in another language. A switch that was asked for before goes.
fn switched(path: &str, code: &str) -> String {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let kept = query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("lang="));
    let pairs: Vec<_> = kept.map(str::to_owned).chain([format!("lang={code}")]).collect();
    format!("{path}?{}", pairs.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switch_of_the_language_keeps_the_rest_of_the_address() {
        for (path, expected) in [
            ("/sign-in", "/sign-in?lang=es"),
            ("/x?status=failed&page=2", "/x?status=failed&page=2&lang=es"),
            ("/x?lang=en", "/x?lang=es"),
            ("/x?lang=en&a=b", "/x?a=b&lang=es"),
        ] {
            assert_eq!(switched(path, "es"), expected);
        }
    }

    #[test]
    fn a_section_without_a_drawing_has_a_dot() {
        assert_eq!(drawing("moon"), DOT);
        assert_eq!(drawing("event_types"), drawing("event-types"));
    }

    #[test]
    fn a_brand_without_a_mark_shows_its_first_letter() {
        assert_eq!(initial(" ñandú"), "Ñ");
        assert_eq!(initial(""), "");
    }
}
