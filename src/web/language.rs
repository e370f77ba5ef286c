//! The language of a page: by the switch on every page, which a cookie remembers, or by the browser's header.

use axum::http::HeaderValue;
use axum::http::header::HeaderMap;

use super::text::Locale;
use crate::api::Language;

/// The cookie that remembers the switch of the language.
const COOKIE: &str = "aldaba_lang";

/// Remembers a language that was asked for.
pub fn language_cookie(locale: Locale) -> HeaderValue {
    let cookie = format!("{COOKIE}={}; Path=/; Max-Age=31536000; SameSite=Lax", locale.code());
    HeaderValue::try_from(cookie).expect("a language has a code of two letters")
}

/// The language that the address asks for, by the switch on every page.
pub fn language_asked(query: &str) -> Option<Locale> {
    query.split('&').find_map(|pair| Locale::from_code(pair.strip_prefix("lang=")?))
}

/// The language that was switched to before, or the browser's.
pub fn language_of(headers: &HeaderMap) -> Locale {
    let cookies = headers.get_all("cookie").iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let kept = pairs.find_map(|(name, value)| if name == COOKIE { Locale::from_code(value) } else { None });
    kept.unwrap_or_else(|| {
        let header = headers.get("accept-language").and_then(|value| value.to_str().ok()).unwrap_or("");
        Locale(Language::from_header(header))
    })
}
