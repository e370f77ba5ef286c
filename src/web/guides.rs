//! The guides of `docs/guides`, built into the program.

use super::text::Locale;
use crate::api::Language;

/// A guide in both languages.
pub struct Guide {
    /// The last part of its address.
    pub slug: &'static str,
    /// Whether it explains a concept; the others show how to do something.
    pub concept: bool,
    english: &'static str,
    spanish: &'static str,
}

macro_rules! guides {
    ($($slug:literal $concept:literal),* $(,)?) => {
        /// Every guide, in the order in which they are listed.
        pub const GUIDES: &[Guide] = &[$(Guide {
            slug: $slug,
            concept: $concept,
            english: include_str!(concat!("../../docs/guides/", $slug, ".md")),
            spanish: include_str!(concat!("../../docs/guides/es/", $slug, ".md")),
        }),*];
    };
}

guides! {
    "quick-start" false,
    "receive-and-verify" false,
    "fit-an-endpoint" false,
    "rotate-a-secret" false,
    "when-a-receiver-is-down" false,
    "replay-after-an-outage" false,
    "idempotent-publishing" false,
    "dashboard" false,
    "production" false,
    "back-up-and-restore" false,
    "errors" false,
    "life-of-a-delivery" true,
    "signatures" true,
    "rate-limits" true,
    "guarantees" true,
    "move-here" false,
}

/// What the guides call the drawing.
const DRAWING_NAME: &str = "life-of-a-delivery.svg";

/// The drawing of the delivery's life.
pub const DRAWING: &str = include_str!("../../docs/guides/life-of-a-delivery.svg");

/// The guide with this name.
pub fn guide(slug: &str) -> Option<&'static Guide> {
    GUIDES.iter().find(|guide| guide.slug == slug)
}

impl Guide {
    /// Its Markdown, without what only the tests read.
    pub fn text(&self, locale: Locale) -> String {
        let mut text = match locale.0 {
            Language::English => self.english,
            Language::Spanish => self.spanish,
        };
        let mut shown = String::new();
        while let Some((before, comment)) = text.split_once("<!-- test:") {
            shown.push_str(before);
            text = comment.split_once("-->").map_or("", |(_, after)| after.trim_start_matches('\n'));
        }
        shown.push_str(text);
        shown
    }

    /// The first line.
    pub fn title(&self, locale: Locale) -> String {
        let text = self.text(locale);
        text.lines().next().unwrap_or("").trim_start_matches("# ").to_owned()
    }

    /// The first paragraph, on one line.
    pub fn summary(&self, locale: Locale) -> String {
        let text = self.text(locale);
        let paragraph = text.split("\n\n").nth(1).unwrap_or("");
        paragraph.lines().map(str::trim).collect::<Vec<_>>().join(" ")
    }

    /// Its address without the ending.
    pub fn page(&self) -> String {
        format!("/docs/guides/{}", self.slug)
    }
}

/// Where a link of a guide leads on the site.
pub fn link(written: &str) -> String {
    match written.split_once(".md") {
        Some((name, rest)) if guide(name).is_some() => format!("/docs/guides/{name}{rest}"),
        _ if written == DRAWING_NAME => format!("/docs/guides/{written}"),
        _ => written.to_owned(),
    }
}
