//! How pages ask the API for what does not stand on one page of a list, and which refusals a form is shown again with.

use maud::{Markup, html};
use serde_json::Value;
use url::form_urlencoded::byte_serialize;

use super::parts::{at_page, empty, pager, pages_end};
use super::visit::{Doc, Failure, Fault, Item, Visit};

/// Entries of one answer: the most that the API gives.
const PER_PAGE: &str = "100";

/// Pages that are read to find one entry: what is beyond is not found.
const MAX_PAGES: u64 = 100;

/// A part of a path of the API. Whatever a visitor writes there, it stays one part.
pub fn segment(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// Every page of a list.
pub async fn pages(v: &Visit, path: &str) -> Result<Vec<Doc>, Failure> {
    let mut docs = Vec::new();
    for page in 1..=MAX_PAGES {
        let doc = v.get(path, &[("page", &page.to_string()), ("per_page", PER_PAGE)]).await?;
        let ends = page >= doc.total_pages();
        docs.push(doc);
        if ends {
            break;
        }
    }
    Ok(docs)
}

/// An entry of a list.
pub struct Found {
    doc: Doc,
    at: usize,
}

impl Found {
    /// The entry.
    pub fn item(&self) -> Item<'_> {
        self.doc.items()[self.at]
    }
}

/// The entry with this id, of a list whose entries the API does not answer alone.
pub async fn find(v: &Visit, path: &str, id: &str) -> Result<Found, Failure> {
    for page in 1..=MAX_PAGES {
        let doc = v.get(path, &[("page", &page.to_string()), ("per_page", PER_PAGE)]).await?;
        let at = doc.items().iter().position(|item| item.id() == id);
        let ends = page >= doc.total_pages();
        match at {
            Some(at) => return Ok(Found { doc, at }),
            None if ends => break,
            None => {}
        }
    }
    let detail = v.say("This does not exist, or no longer.");
    Err(Failure { status: 404, ..local(vec![fault("not_found", detail, None)]) })
}

/// A refusal that a page makes itself.
pub fn local(faults: Vec<Fault>) -> Failure {
    Failure { status: 422, faults, retry_after: None }
}

/// A fault that a page finds itself.
pub fn fault(code: &str, detail: String, field: Option<&str>) -> Fault {
    Fault { code: code.to_owned(), detail, field: field.map(str::to_owned), meta: Value::Null }
}

/// A refusal with which a form is shown again, because its sender can mend it or wait. What is at fault in none of its
/// `fields` is told above it. Any other refusal is a page of its own.
pub fn mendable(mut failure: Failure, fields: &[&str]) -> Result<Failure, Failure> {
    if failure.faults.is_empty() || !matches!(failure.status, 400 | 409 | 413 | 422 | 429 | 503) {
        return Err(failure);
    }
    for fault in &mut failure.faults {
        fault.field.take_if(|field| !fields.contains(&field.as_str()));
    }
    Ok(failure)
}

/// The status of a page that shows a form again.
pub fn status_of(failure: &Failure) -> u16 {
    if matches!(failure.status, 413 | 429 | 503) { failure.status } else { 422 }
}

/// A page of a list: its rows and the way to the other pages, or `nothing` where the list is empty. A page behind the last
/// one says that the list has become shorter, or how far pages go.
pub fn listed(v: &Visit, doc: &Doc, path: &str, nothing: Markup, rows: impl FnOnce(&[Item<'_>]) -> Markup) -> Markup {
    let items = doc.items();
    if !items.is_empty() {
        return html! { (rows(&items)) (pager(v, doc, path)) };
    }
    if doc.total() == 0 {
        return nothing;
    }
    let first = at_page(v, path, 1);
    let why = if doc.goes_on() { pages_end(v, doc) } else { v.say("The list has become shorter than it was.") };
    empty(&v.say("Nothing is on this page"), &why, Some((&first, &v.say("To the first page"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_path_stays_one() {
        assert_eq!(segment("order.created"), "order.created");
        assert_eq!(segment("../a?b#c d%2fñ"), "..%2Fa%3Fb%23c%20d%252f%C3%B1");
    }

    #[test]
    fn a_form_is_shown_again_where_its_sender_can_do_something() {
        let refused = |status| Failure { status, ..local(vec![fault("x", String::new(), Some("secret"))]) };
        let mended = mendable(refused(409), &["name"]).expect("mendable");
        assert_eq!((status_of(&mended), mended.of("secret").is_none()), (422, true));
        assert!(mendable(refused(422), &["secret"]).expect("mendable").of("secret").is_some());
        assert_eq!(status_of(&mendable(refused(429), &[]).expect("mendable")), 429);
        for status in [401, 403, 404, 500] {
            assert!(mendable(refused(status), &["secret"]).is_err(), "{status}");
        }
    }
}
