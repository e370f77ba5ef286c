//! Where the answers of Svix's API come from: a server, or a file of its answers. The file has one JSON object in a
//! line: `path`, such as `/api/v1/app/`, and `body`, the answer to a `GET` of it. A list of several pages has as many
//! lines. A list ends after a bounded number of pages, and an id stands in a path only if it can be one.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use serde_json::Value;

use crate::cli::args::read_file;
use crate::egress::{FetchedAnswer, Fetcher};

/// Largest file, in bytes. Read, it takes several times as much memory.
const MAX_FILE: usize = 64 << 20;

/// Rows of a page: the most that Svix allows.
const PER_PAGE: usize = 250;

/// Pages of one list: 2,500,000 rows.
const MAX_PAGES: usize = 10_000;

/// Longest iterator and id, in characters: Svix's have up to 256.
const MAX_ID_CHARS: usize = 256;

/// How often a request is made that the server refuses for now.
const TRIES: u32 = 5;

/// Between two tries, where the server says nothing, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A source of answers.
pub(super) enum Source {
    /// A server.
    Server(Box<Fetcher>),
    /// The answers of a file, by their paths without query.
    File(BTreeMap<String, Vec<Value>>),
}

/// A list that is read page by page.
pub(super) struct Listing {
    path: String,
    query: &'static str,
    iterator: Option<String>,
    pages: usize,
    is_done: bool,
}

impl Listing {
    /// The list at this path. `query` is what else is asked for.
    pub fn new(path: String, query: &'static str) -> Self {
        Self { path, query, iterator: None, pages: 0, is_done: false }
    }

    /// Where the next page is.
    fn address(&self) -> String {
        let mut address = format!("{}?limit={PER_PAGE}{}", self.path, self.query);
        if let Some(iterator) = &self.iterator {
            address.push_str("&iterator=");
            address.extend(url::form_urlencoded::byte_serialize(iterator.as_bytes()));
        }
        address
    }

    /// Goes on behind a page.
    fn turn(&mut self, page: &Value) -> anyhow::Result<()> {
        let unreadable = || format!("the answer to {} is no page of a list: it has no `done`", self.path);
        self.is_done = page["done"].as_bool().with_context(unreadable)?;
        self.pages += 1;
        if self.is_done {
            return Ok(());
        }
        let next = page["iterator"].as_str().filter(|next| next.len() <= MAX_ID_CHARS);
        if next.is_none() || next == self.iterator.as_deref() || self.pages == MAX_PAGES {
            bail!("the list {} does not end after {} pages", self.path, self.pages);
        }
        self.iterator = next.map(str::to_owned);
        Ok(())
    }
}

impl Source {
    /// The answers of a file.
    pub fn file(path: &Path) -> anyhow::Result<Self> {
        let answers = read_answers(&read_file(path, MAX_FILE)?).with_context(|| path.display().to_string())?;
        Ok(Self::File(answers))
    }

    /// A server at this URL. Warns where its answers, which have secrets, are not encrypted on their way.
    pub fn server(url: &str, token: &str) -> anyhow::Result<Self> {
        let fetcher = Fetcher::new(url, token)?;
        if fetcher.is_in_clear() {
            eprintln!(
                "warning: the token and the secrets of the endpoints cross the network in clear, because --url is \
                 http: use https, or rotate them afterwards"
            );
        }
        Ok(Self::Server(Box::new(fetcher)))
    }

    /// The rows of the next page; `None` behind the last one. A file has all of them in one page.
    pub async fn next(&mut self, list: &mut Listing) -> anyhow::Result<Option<Vec<Value>>> {
        if list.is_done {
            return Ok(None);
        }
        let path = list.path.clone();
        match self {
            Self::Server(fetcher) => {
                let page = get(fetcher, &list.address()).await?;
                let page = page.with_context(|| format!("GET {path} was answered with 404"))?;
                list.turn(&page)?;
                rows(&path, &page).map(Some)
            }
            Self::File(answers) => {
                list.is_done = true;
                let pages = answers.get(without_query(&path));
                let pages = pages.with_context(|| format!("the file has no answer of {path}"))?;
                if !pages.iter().any(|page| page["done"] == true) {
                    bail!("the file has not all pages of {path}: none says that it is the last (`done`)");
                }
                let pages = pages.iter().map(|page| rows(&path, page)).collect::<anyhow::Result<Vec<_>>>()?;
                Ok(Some(pages.concat()))
            }
        }
    }

    /// The resource at this path, if there is one.
    pub async fn resource(&mut self, path: &str) -> anyhow::Result<Option<Value>> {
        match self {
            Self::Server(fetcher) => get(fetcher, path).await,
            Self::File(answers) => Ok(answers.get(without_query(path)).and_then(|answers| answers.last()).cloned()),
        }
    }
}

/// The id of a row, if it is one that can stand in a path.
pub(super) fn id_of(row: &Value) -> Option<&str> {
    let may_stand = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    row["id"].as_str().filter(|id| (1..=MAX_ID_CHARS).contains(&id.len()) && id.bytes().all(may_stand))
}

fn rows(path: &str, page: &Value) -> anyhow::Result<Vec<Value>> {
    let rows = page["data"].as_array().cloned();
    rows.with_context(|| format!("the answer to {path} is no page of a list: it has no `data`"))
}

/// Reads an answer; `None` is 404.
async fn get(fetcher: &mut Fetcher, path: &str) -> anyhow::Result<Option<Value>> {
    for _ in 1..TRIES {
        let answer = fetcher.get(path).await?;
        if !matches!(answer.status, 429 | 503) {
            return read_answer(path, &answer);
        }
        tokio::time::sleep(answer.retry_after.unwrap_or(PAUSE.0).min(PAUSE.1)).await;
    }
    read_answer(path, &fetcher.get(path).await?)
}

fn read_answer(path: &str, answer: &FetchedAnswer) -> anyhow::Result<Option<Value>> {
    match answer.status {
        200 => {
            let json = serde_json::from_slice(&answer.body);
            json.map(Some).map_err(|error| anyhow!("the answer to GET {path} is no JSON: {error}"))
        }
        404 => Ok(None),
        status @ (401 | 403) => bail!("the server refuses the token: GET {path} was answered with {status}"),
        status => bail!("GET {path} was answered with {status}"),
    }
}

/// Reads the lines of a file.
fn read_answers(bytes: &[u8]) -> anyhow::Result<BTreeMap<String, Vec<Value>>> {
    let mut answers: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let mut answer: Value = serde_json::from_slice(line)
            .map_err(|error| anyhow!("line {number}, column {}: this is no JSON", error.column()))?;
        let path = answer["path"].as_str().filter(|path| path.starts_with('/')).map(str::to_owned);
        let path = path.with_context(|| format!("line {number}: `path` must be the path of the request"))?;
        let body = answer["body"].take();
        if !body.is_object() {
            bail!("line {number}: `body` must be the answer, which is an object");
        }
        answers.entry(without_query(&path).to_owned()).or_default().push(body);
    }
    Ok(answers)
}

/// A path as the answers of a file are found by it.
fn without_query(path: &str) -> &str {
    path.split('?').next().unwrap_or_default().trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_goes_on_until_it_is_done_and_ends_where_it_would_not() {
        let mut list = Listing::new("/api/v1/app/".into(), "&a=b");
        assert_eq!(list.address(), "/api/v1/app/?limit=250&a=b");
        list.turn(&json!({ "done": false, "iterator": "a b&" })).expect("a page");
        assert_eq!(list.address(), "/api/v1/app/?limit=250&a=b&iterator=a+b%26");
        let long = "x".repeat(MAX_ID_CHARS + 1);
        for stuck in [json!("a b&"), json!(null), json!(7), json!(long)] {
            let error = list.turn(&json!({ "done": false, "iterator": stuck })).expect_err("stuck").to_string();
            assert!(error.starts_with("the list /api/v1/app/ does not end after"), "{error}");
        }
        assert!(list.turn(&json!({ "data": [] })).is_err() && list.turn(&json!([])).is_err());
        list.pages = MAX_PAGES - 1;
        assert!(list.turn(&json!({ "done": false, "iterator": "next" })).is_err());
        list.turn(&json!({ "done": true, "iterator": "next" })).expect("the last page");
        assert!(list.is_done);
    }

    #[test]
    fn an_id_that_would_be_another_path_is_none() {
        assert_eq!(id_of(&json!({ "id": "app_2srOrx2ZWZBpBUvZwXKQmoEYga2" })), Some("app_2srOrx2ZWZBpBUvZwXKQmoEYga2"));
        for bad in [json!(""), json!("../admin"), json!("a?b"), json!("a b"), json!(7), json!("a".repeat(257))] {
            assert_eq!(id_of(&json!({ "id": bad })), None);
        }
        assert_eq!(id_of(&json!("app_1")), None);
    }

    #[tokio::test]
    async fn the_pages_of_a_list_in_a_file_are_one_and_the_last_must_be_there() {
        let page = |path: &str, id: u8, done: bool| json!({ "path": path, "body": { "data": [id], "done": done } });
        let lines = [page("/a/?limit=1", 1, false), json!({ "path": "/a/b/", "body": { "key": "k" } })];
        let file = |lines: &[Value]| {
            let lines: Vec<String> = lines.iter().map(|line| format!("{line}\r\n\n")).collect();
            Source::File(read_answers(lines.concat().as_bytes()).expect("readable"))
        };
        let list = || Listing::new("/a/".into(), "");
        let error = file(&lines).next(&mut list()).await.expect_err("one page is missing").to_string();
        assert!(error.contains("/a/"), "{error}");
        let mut whole = file(&[&lines[..], &[page("/a?limit=1&iterator=1", 2, true)]].concat());
        let mut list = list();
        assert_eq!(whole.next(&mut list).await.expect("readable"), Some(vec![json!(1), json!(2)]));
        assert_eq!(whole.next(&mut list).await.expect("readable"), None);
        assert_eq!(whole.resource("/a/b").await.expect("readable"), Some(json!({ "key": "k" })));
        assert_eq!(whole.resource("/a/c/").await.expect("readable"), None);
        assert!(whole.next(&mut Listing::new("/c/".into(), "")).await.is_err());
    }

    #[test]
    fn a_line_of_a_file_that_is_no_answer_is_named() {
        for (text, expected) in [
            ("{\"path\":\"/a\",\"body\":{}}\n\nhidden", "line 3, column 1: this is no JSON"),
            ("[]", "line 1: `path` must be"),
            ("{\"path\":\"a\",\"body\":{}}", "line 1: `path` must be"),
            ("{\"path\":\"/a\",\"body\":\"hidden\"}", "line 1: `body` must be"),
            ("{\"path\":\"/a\"}", "line 1: `body` must be"),
        ] {
            let error = read_answers(text.as_bytes()).expect_err(text).to_string();
            assert!(error.starts_with(expected) && !error.contains("hidden"), "{error}");
        }
    }
}
