//! Rows as a file for spreadsheets, written piece by piece: CSV (RFC 4180), or XLSX (ECMA-376, one sheet in a ZIP
//! archive).
//!
//! Text stays text: what a spreadsheet would run as a formula is escaped in CSV, and XLSX says of each cell what it is.

use std::borrow::Cow;
use std::io::{self, Write};
use std::mem;
use std::sync::Arc;

use zip::write::{SimpleFileOptions, StreamWriter, ZipWriter};
use zip::{CompressionMethod, DateTime};

use crate::lock::Mutex;

/// The kinds of files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Comma-separated values.
    Csv,
    /// An Excel workbook.
    Xlsx,
}

impl Format {
    /// Reads a name; what is unknown is CSV.
    pub fn parse(name: &str) -> Self {
        if name.trim().eq_ignore_ascii_case("xlsx") { Self::Xlsx } else { Self::Csv }
    }

    /// The name, which is also the ending of a file's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Xlsx => "xlsx",
        }
    }

    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8",
            Self::Xlsx => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        }
    }
}

/// A cell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cell<'a> {
    /// Nothing.
    Empty,
    /// Text, from whomever.
    Text(Cow<'a, str>),
    /// A number that fits a spreadsheet's: below 2^53.
    Number(u64),
}

impl<'a> Cell<'a> {
    /// Text of somebody else's.
    pub fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    /// Text of ours.
    pub fn owned(text: impl ToString) -> Self {
        Self::Text(Cow::Owned(text.to_string()))
    }

    /// What there is of it.
    pub fn maybe<T>(value: Option<T>, cell: impl FnOnce(T) -> Self) -> Self {
        value.map_or(Self::Empty, cell)
    }
}

/// A file under way.
pub enum Table {
    /// The rows since the last [`Table::take`].
    Csv(Box<csv::Writer<Vec<u8>>>),
    /// The archive, where its bytes go, and how many rows there are.
    Xlsx(Box<ZipWriter<StreamWriter<Sink>>>, Sink, u64),
}

impl Table {
    /// Begins with the names of the columns and, for a sheet, their widths in characters.
    pub fn begin(format: Format, columns: &[(&str, u16)]) -> io::Result<Self> {
        let mut table = match format {
            Format::Csv => Self::Csv(csv_writer()),
            Format::Xlsx => xlsx(columns)?,
        };
        let names: Vec<Cell<'_>> = columns.iter().map(|(name, _)| Cell::text(name)).collect();
        table.row(&names)?;
        Ok(table)
    }

    /// Writes a row.
    pub fn row(&mut self, cells: &[Cell<'_>]) -> io::Result<()> {
        match self {
            Self::Csv(writer) => {
                for cell in cells {
                    match cell {
                        Cell::Empty => writer.write_field("")?,
                        Cell::Text(text) => writer.write_field(&*inert(text))?,
                        Cell::Number(number) => writer.write_field(number.to_string())?,
                    }
                }
                Ok(writer.write_record(None::<&[u8]>)?)
            }
            Self::Xlsx(archive, _, rows) => {
                *rows += 1;
                archive.write_all(sheet_row(*rows, cells).as_bytes())
            }
        }
    }

    /// The bytes of the file since the last time.
    pub fn take(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Self::Csv(writer) => {
                mem::replace(writer, csv_writer()).into_inner().map_err(csv::IntoInnerError::into_error)
            }
            Self::Xlsx(_, sink, _) => Ok(sink.take()),
        }
    }

    /// Ends the file: its last bytes.
    pub fn finish(mut self) -> io::Result<Vec<u8>> {
        if let Self::Xlsx(archive, ..) = &mut self {
            archive.write_all(b"</sheetData></worksheet>")?;
        }
        match self {
            Self::Csv(writer) => writer.into_inner().map_err(csv::IntoInnerError::into_error),
            Self::Xlsx(archive, sink, _) => {
                archive.finish()?;
                Ok(sink.take())
            }
        }
    }
}

fn csv_writer() -> Box<csv::Writer<Vec<u8>>> {
    Box::new(csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new()))
}

/// What a formula begins with, in full width too: spreadsheets of some languages take both for the same.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];

/// Text that no spreadsheet runs: where a cell begins like a formula, an apostrophe stands before it (OWASP, CSV
/// Injection). A spreadsheet that takes `;` or a tab for what separates cells sees one begin after each of them, and
/// after each end of a line; spaces, control characters and quotes before a formula do not keep it from being one.
fn inert(text: &str) -> Cow<'_, str> {
    let begins_apart = text.starts_with(['\t', '\r', '\n']);
    if !begins_apart && !text.contains(FORMULA) {
        return Cow::Borrowed(text);
    }
    let mut inert = String::with_capacity(text.len() + 2);
    if begins_apart {
        inert.push('\'');
    }
    let mut cell_begins = true;
    for character in text.chars() {
        if cell_begins && FORMULA.contains(&character) {
            inert.push('\'');
        }
        cell_begins = match character {
            ';' | '\t' | '\r' | '\n' => true,
            '"' => cell_begins,
            other => cell_begins && (other.is_whitespace() || other.is_control()),
        };
        inert.push(character);
    }
    Cow::Owned(inert)
}

/// Where an archive's bytes wait to be taken.
#[derive(Clone, Default)]
pub struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn take(&self) -> Vec<u8> {
        mem::take(&mut *self.0.lock())
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The parts of a workbook before its one sheet (ECMA-376 part 1, section 12).
const PARTS: [(&str, &str); 4] = [
    (
        "[Content_Types].xml",
        concat!(
            r#"<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">"#,
            r#"<Default Extension="rels""#,
            r#" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>"#,
            r#"<Default Extension="xml" ContentType="application/xml"/><Override PartName="/xl/workbook.xml""#,
            r#" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>"#,
            r#"<Override PartName="/xl/worksheets/sheet1.xml""#,
            r#" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/>"#,
            "</Types>",
        ),
    ),
    (
        "_rels/.rels",
        concat!(
            r#"<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">"#,
            r#"<Relationship Id="rId1""#,
            r#" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument""#,
            r#" Target="xl/workbook.xml"/></Relationships>"#,
        ),
    ),
    (
        "xl/workbook.xml",
        concat!(
            r#"<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main""#,
            r#" xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets>"#,
            r#"<sheet name="Export" sheetId="1" r:id="rId1"/></sheets></workbook>"#,
        ),
    ),
    (
        "xl/_rels/workbook.xml.rels",
        concat!(
            r#"<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">"#,
            r#"<Relationship Id="rId1""#,
            r#" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet""#,
            r#" Target="worksheets/sheet1.xml"/></Relationships>"#,
        ),
    ),
];

const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n";

/// A workbook up to the first row of its sheet, which is the last part, so that rows go out as they come.
fn xlsx(columns: &[(&str, u16)]) -> io::Result<Table> {
    let sink = Sink::default();
    let mut archive = ZipWriter::new_stream(sink.clone());
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(3))
        .last_modified_time(DateTime::default());
    for (name, text) in PARTS {
        archive.start_file(name, options)?;
        write!(archive, "{DECLARATION}{text}")?;
    }
    archive.start_file("xl/worksheets/sheet1.xml", options)?;
    write!(archive, "{DECLARATION}<worksheet xmlns=\"http://schemas.openxmlformats.org/spreadsheetml/2006/main\">")?;
    // The first row stays in sight.
    archive.write_all(
        b"<sheetViews><sheetView workbookViewId=\"0\"><pane ySplit=\"1\" topLeftCell=\"A2\" \
          state=\"frozen\"/></sheetView>\
          </sheetViews><cols>",
    )?;
    for (number, (_, width)) in (1..).zip(columns) {
        write!(archive, "<col min=\"{number}\" max=\"{number}\" width=\"{width}\" customWidth=\"1\"/>")?;
    }
    archive.write_all(b"</cols><sheetData>")?;
    Ok(Table::Xlsx(Box::new(archive), sink, 0))
}

fn sheet_row(number: u64, cells: &[Cell<'_>]) -> String {
    let mut row = format!("<row r=\"{number}\">");
    for (column, cell) in ('A'..='Z').zip(cells) {
        match cell {
            Cell::Empty => {}
            Cell::Text(text) => row.push_str(&format!(
                "<c r=\"{column}{number}\" t=\"inlineStr\"><is><t xml:space=\"preserve\">{}</t></is></c>",
                escaped(text)
            )),
            Cell::Number(value) => row.push_str(&format!("<c r=\"{column}{number}\"><v>{value}</v></c>")),
        }
    }
    row.push_str("</row>");
    row
}

/// Text within XML 1.0. What XML cannot hold (section 2.2) becomes U+FFFD.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            // A reader would take it for the end of a line and leave it out.
            '\r' => escaped.push_str("&#13;"),
            '\t' | '\n' => escaped.push(character),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_spreadsheet_would_run_is_text() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "＝1", "＋1", "－1", "＠SUM(A1)", "\ta", "\ra", "\na"] {
            assert_eq!(inert(text), format!("'{text}"));
        }
        for text in ["", "1=1", "http://a/?b=c", "'=1", "a;b", "a; b=c", "a b-c", "\"a\"=1"] {
            assert_eq!(inert(text), text);
        }
        for (text, expected) in [
            ("a;=1+1", "a;'=1+1"),
            ("a\t@SUM(A1)", "a\t'@SUM(A1)"),
            ("a\r\n-1;+2", "a\r\n'-1;'+2"),
            ("a;＝1", "a;'＝1"),
            ("a; \"=1\"", "a; \"'=1\""),
            (" =1", " '=1"),
            ("\"\"=1", "\"\"'=1"),
            ("\t=1", "'\t'=1"),
            ("\0=1+1", "\0'=1+1"),
            ("a;\u{1b}\u{9b} \0@SUM(A1)", "a;\u{1b}\u{9b} \0'@SUM(A1)"),
        ] {
            assert_eq!(inert(text), expected);
        }
    }

    #[test]
    fn rows_are_quoted_where_they_must_be_and_end_as_the_standard_says() {
        let mut table = Table::begin(Format::Csv, &[("id", 1), ("text", 1)]).expect("begun");
        table.row(&[Cell::Number(7), Cell::text("a,\"b\"\nc")]).expect("written");
        let first = table.take().expect("bytes");
        table.row(&[Cell::Empty, Cell::text("=x")]).expect("written");
        let rest = table.finish().expect("bytes");
        assert_eq!(
            String::from_utf8([first, rest].concat()).expect("text"),
            "id,text\r\n7,\"a,\"\"b\"\"\nc\"\r\n,'=x\r\n"
        );
    }

    #[test]
    fn a_workbook_goes_out_as_it_grows() {
        let mut table = Table::begin(Format::Xlsx, &[("id", 10)]).expect("begun");
        let begun = table.take().expect("bytes").len();
        assert!(begun > 500, "the parts before the sheet are there");
        let mut sent = 0;
        for round in 0..20 {
            for number in 0..1_000_u64 {
                table.row(&[Cell::owned(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))]).expect("written");
            }
            let bytes = table.take().expect("bytes").len();
            assert!(bytes < 200_000, "round {round}: {bytes}");
            sent += bytes;
        }
        assert!(sent > 100_000, "{sent}");
        assert!(table.finish().expect("bytes").ends_with(&[0, 0]), "no comment after the archive's end");
    }

    #[test]
    fn what_xml_cannot_hold_is_replaced() {
        assert_eq!(
            escaped("<a href='&'>\0\u{b}\r\n\u{ffff}ñ"),
            "&lt;a href='&amp;'&gt;\u{fffd}\u{fffd}&#13;\n\u{fffd}ñ"
        );
    }
}
