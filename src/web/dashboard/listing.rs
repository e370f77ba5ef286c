//! How pages read lists of the API: all entries, one entry, and one page with the way to the others.

use maud::{Markup, html};
use url::form_urlencoded::byte_serialize;

use super::form_errors::{fault, local};
use super::page_context::{Failure, PageContext};
use super::parts::{at_page, empty, pager, pages_end};
use crate::api::{FromAnswer, Listing, Resource};

/// Entries of one answer: the most that the API gives.
const PER_PAGE: &str = "100";

/// Pages that are read to find one entry: what is beyond is not found.
const MAX_PAGES: u64 = 100;

/// A part of a path of the API. Whatever a client writes there, it stays one part.
pub fn segment(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// Every entry of a list, from all its pages.
pub async fn entries<R>(cx: &PageContext, path: &str) -> Result<Vec<R>, Failure>
where
    Listing<R>: FromAnswer,
{
    let mut entries = Vec::new();
    for page in 1..=MAX_PAGES {
        let listing: Listing<R> = cx.get(path, &[("page", &page.to_string()), ("per_page", PER_PAGE)]).await?;
        let ends = page >= listing.pagination().total_pages;
        entries.extend(listing.items);
        if ends {
            break;
        }
    }
    Ok(entries)
}

/// The entry with this id, of a list whose entries the API does not answer alone.
pub async fn find<A>(cx: &PageContext, path: &str, id: &str) -> Result<Resource<A>, Failure>
where
    Listing<Resource<A>>: FromAnswer,
{
    for page in 1..=MAX_PAGES {
        let listing: Listing<Resource<A>> =
            cx.get(path, &[("page", &page.to_string()), ("per_page", PER_PAGE)]).await?;
        let ends = page >= listing.pagination().total_pages;
        if let Some(found) = listing.items.into_iter().find(|entry| entry.id == id) {
            return Ok(found);
        }
        if ends {
            break;
        }
    }
    let detail = cx.say("This does not exist, or no longer.");
    Err(Failure { status: 404, ..local(vec![fault(detail, None)]) })
}

/// A page of a list: its rows and the way to the other pages, or `nothing` where the list is empty. A page behind the
/// last one says that the list has become shorter, or how far pages go.
pub fn listed<R>(
    cx: &PageContext,
    listing: &Listing<R>,
    path: &str,
    nothing: Markup,
    rows: impl FnOnce(&[R]) -> Markup,
) -> Markup {
    let (items, list) = (&listing.items, listing.pagination());
    if !items.is_empty() {
        return html! { (rows(items)) (pager(cx, list, items.len(), path)) };
    }
    if list.total == 0 {
        return nothing;
    }
    let first = at_page(cx, path, 1);
    let why = if list.goes_on() { pages_end(cx, list) } else { cx.say("The list has become shorter than it was.") };
    empty(&cx.say("Nothing is on this page"), &why, Some((&first, &cx.say("To the first page"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_path_stays_one() {
        assert_eq!(segment("order.created"), "order.created");
        assert_eq!(segment("../a?b#c d%2fñ"), "..%2Fa%3Fb%23c%20d%252f%C3%B1");
    }
}
