//! The endpoints of one account, from a CSV file (RFC 4180). The first line names the columns, in any order.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::maker::{Body, Maker};
use super::report::{Fault, Item, Outcome, Place, Report};
use crate::cli::args::{printable, read_file};
use crate::domain::id::AccountId;
use crate::store::StoreError;

/// Largest file, in bytes: as many rows as are read, with the longest URLs.
const MAX_FILE: usize = 32 << 20;

/// Rows that are read: many times as many as one account has endpoints.
const MAX_ROWS: usize = 10_000;

/// The columns that a file may have. Each is the attribute of that name.
const COLUMNS: [&str; 5] = ["url", "events", "secret", "description", "external_id"];

/// The columns that a file must have.
const NEEDED: [&str; 2] = ["url", "events"];

/// What an endpoint gets whose row has no secret.
const GENERATED: &str = "it gets a new secret: rotate it to see one";

/// A row.
struct Row {
    line: u64,
    body: Body,
    /// What is wrong with it before anybody looks at its values.
    faults: Vec<Fault>,
}

/// Makes the endpoints of a file in this account.
pub(super) async fn import(maker: &Maker, report: &mut Report, account: AccountId, file: &Path) -> anyhow::Result<()> {
    let rows = read(&read_file(file, MAX_FILE)?).with_context(|| file.display().to_string())?;
    let mut owner = maker.owner(account).await.map_err(|error| match error {
        StoreError::NotFound => anyhow!("no such account; see `aldaba accounts list`"),
        other => other.into(),
    })?;
    for Row { line, body, faults } in rows {
        let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
        let item = Item { place: Place::Line(line), kind: "endpoint", name: text("url").unwrap_or_default() };
        let names: Vec<String> = text("external_id").into_iter().collect();
        let outcome =
            if faults.is_empty() { maker.endpoint(&mut owner, &names, &body).await? } else { Outcome::Refused(faults) };
        let is_generated = matches!(outcome, Outcome::Made(_)) && !body.contains_key("secret");
        let notes: Vec<String> = is_generated.then(|| GENERATED.to_owned()).into_iter().collect();
        report.tell(&item, &outcome, &notes)?;
    }
    Ok(())
}

/// Reads the rows. An error is a fault of the whole file.
fn read(bytes: &[u8]) -> anyhow::Result<Vec<Row>> {
    // The reader would take all that follows for one cell.
    if bytes.iter().fold(false, |is_open, byte| is_open != (*byte == b'"')) {
        bail!("a quote is opened and not closed: write each quote within a quoted cell twice");
    }
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    let mut lines = Lines { bytes, counted: 0, line: 1 };
    let mut record = csv::ByteRecord::new();
    if !reader.read_byte_record(&mut record)? {
        bail!("the file is empty: its first line names the columns, which are {}", COLUMNS.join(", "));
    }
    let columns = columns(&record, lines.of(&record))?;
    let (mut rows, mut names) = (Vec::new(), BTreeMap::new());
    while reader.read_byte_record(&mut record)? {
        if rows.len() == MAX_ROWS {
            bail!("the file has more than {MAX_ROWS} rows");
        }
        let line = lines.of(&record);
        rows.push(row(&columns, &record, line, &mut names));
    }
    Ok(rows)
}

/// Tells the line of one record after the other.
struct Lines<'a> {
    bytes: &'a [u8],
    counted: usize,
    line: u64,
}

impl Lines<'_> {
    fn of(&mut self, record: &csv::ByteRecord) -> u64 {
        let position = record.position().map_or(0, csv::Position::byte);
        let position = usize::try_from(position).expect("the file is in memory");
        // The reader counts the end of the line before, and empty lines, with the record.
        let ends = self.bytes[position..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let begin = position + ends;
        self.line += self.bytes[self.counted..begin].iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
        self.counted = begin;
        self.line
    }
}

fn columns(header: &csv::ByteRecord, line: u64) -> anyhow::Result<Vec<&'static str>> {
    let mut columns = Vec::new();
    for cell in header {
        let name = String::from_utf8_lossy(cell);
        let known = COLUMNS.into_iter().find(|known| *known == name.trim());
        let known = known.with_context(|| {
            format!("line {line}: unknown column {}; the columns are {}", printable(name.trim()), COLUMNS.join(", "))
        })?;
        if columns.contains(&known) {
            bail!("line {line}: the column {known} is there twice");
        }
        columns.push(known);
    }
    match NEEDED.into_iter().find(|needed| !columns.contains(needed)) {
        Some(missing) => bail!("line {line}: the column {missing} is missing"),
        None => Ok(columns),
    }
}

/// Reads a row. `names` has the external ids of the rows before, each with its line.
fn row(columns: &[&str], record: &csv::ByteRecord, line: u64, names: &mut BTreeMap<String, u64>) -> Row {
    let (mut body, mut faults) = (Body::new(), Vec::new());
    if record.len() != columns.len() {
        let detail = format!("the row has {} cells, and the first line has {}", record.len(), columns.len());
        faults.push(Fault { field: None, detail });
    }
    for (column, cell) in columns.iter().zip(record) {
        match std::str::from_utf8(cell) {
            // An empty cell is none.
            Ok("") => {}
            Ok(text) => {
                body.insert((*column).to_owned(), value(column, text));
            }
            Err(_) => faults.push(Fault::of(column, "it is not UTF-8")),
        }
    }
    let mut named_by = "external_id";
    if !body.contains_key(named_by)
        && let Some(Value::String(url)) = body.get("url")
    {
        let name = name_of(url);
        named_by = "url";
        body.insert("external_id".to_owned(), name.into());
    }
    if let Some(Value::String(name)) = body.get("external_id") {
        match names.get(name) {
            Some(first) => {
                let detail = format!("line {first} has the same value: give each row an external_id of its own");
                faults.push(Fault::of(named_by, detail));
            }
            None => {
                names.insert(name.clone(), line);
            }
        }
    }
    Row { line, body, faults }
}

/// The value of a cell. Events are separated by semicolons, spaces, or both.
fn value(column: &str, text: &str) -> Value {
    if column == "events" {
        let events = text.split(|c: char| c == ';' || c.is_whitespace());
        return events.filter(|event| !event.is_empty()).collect();
    }
    text.into()
}

/// The external id of a row that has none: a further run knows the row by it.
fn name_of(url: &str) -> String {
    format!("csv-{}", hex::encode(&digest(&SHA256, url.as_bytes()).as_ref()[..16]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bodies(text: &str) -> Vec<Value> {
        read(text.as_bytes()).expect(text).into_iter().map(|row| Value::Object(row.body)).collect()
    }

    fn told(text: &[u8]) -> Vec<(u64, Option<String>, String)> {
        let rows = read(text).expect("rows").into_iter();
        rows.flat_map(|row| row.faults.into_iter().map(move |fault| (row.line, fault.field, fault.detail))).collect()
    }

    #[test]
    fn a_row_is_the_body_of_a_call_whatever_the_order_of_the_columns() {
        let text = "\u{feff}external_id, events ,url,description,secret\r\n\
                    a,order.*; order.paid validation.failed;,http://a/,\"one, \"\"two\"\"\nthree\",whsec_x\r\n\
                    \r\n\
                    b,*,http://b/,,\r\n";
        let expected = [
            json!({
                "external_id": "a",
                "events": ["order.*", "order.paid", "validation.failed"],
                "url": "http://a/",
                "description": "one, \"two\"\nthree",
                "secret": "whsec_x",
            }),
            json!({ "external_id": "b", "events": ["*"], "url": "http://b/" }),
        ];
        assert_eq!(bodies(text), expected);
    }

    #[test]
    fn a_row_without_an_external_id_is_known_by_its_url() {
        let rows = bodies("url,events\nhttp://a/,*\nhttp://b/,*\n");
        assert_eq!(rows[0]["external_id"], name_of("http://a/"));
        assert!(name_of("http://a/").starts_with("csv-") && name_of("http://a/").len() == 36);
        assert_ne!(rows[0]["external_id"], rows[1]["external_id"]);
        assert_eq!(bodies("url,events\n,*\n"), [json!({ "events": ["*"] })]);
    }

    #[test]
    fn faults_name_their_line_whatever_ends_lines() {
        let text = b"url,external_id,events\r\n\r\nhttp://a/,a,\"x\r\ny\"\r\n\nhttp://b/,a,x\rhttp://c/,c\n\xff,d,x\n";
        let same = "line 3 has the same value: give each row an external_id of its own";
        let expected = [
            (6, Some("external_id".to_owned()), same.to_owned()),
            (6, None, "the row has 2 cells, and the first line has 3".to_owned()),
            (7, Some("url".to_owned()), "it is not UTF-8".to_owned()),
        ];
        assert_eq!(told(text), expected);
        let twice = told(b"url,events\nhttp://a/,x\nhttp://a/,y\n");
        assert_eq!(twice, [(3, Some("url".to_owned()), same.replace('3', "2"))]);
    }

    #[test]
    fn a_file_whose_columns_are_wrong_is_refused_as_a_whole() {
        for (text, expected) in [
            ("", "the file is empty: its first line names the columns, which are url, events, secret"),
            ("\n\nurl,events,colour\n", "line 3: unknown column colour; the columns are url, events, secret"),
            ("url,events,url\n", "line 1: the column url is there twice"),
            ("url,secret\n", "line 1: the column events is missing"),
            ("url,events\nhttp://a/,\"*\nhttp://b/,*\n", "a quote is opened and not closed"),
        ] {
            let error = read(text.as_bytes()).err().expect(text).to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
