//! Where settings are written: the file with the line of each, the environment, the files that variables name, and
//! flags. What they say is checked by `reader`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::problems::Problem;
use super::table::{ENV_PREFIX, SECRETS, TAKE_EMPTY, is_known};

/// The end of a variable that names a file with the value.
const FILE_SUFFIX: &str = "_file";

/// Bytes of a file with a secret. A thousand keys of `secrets.previous_master_keys` fit in.
const MAX_SECRET_FILE: u64 = 64 << 10;

/// Most faults of TOML that one start names. A file that is no TOML at all has a fault in each line.
const MAX_SYNTAX_FAULTS: usize = 10;

/// A setting as it was written, and where.
pub(super) struct RawSetting {
    pub text: String,
    pub source: String,
}

/// What the sources say. A later source replaces an earlier source.
#[derive(Default)]
pub(super) struct Sources {
    pub written: BTreeMap<String, RawSetting>,
    /// Settings whose last source cannot be read. Their problem is noted.
    pub unreadable: BTreeSet<String>,
    /// What is wrong with the sources themselves.
    pub problems: Vec<Problem>,
    /// The sources in the order in which they were read.
    pub read: Vec<String>,
    pub file: Option<PathBuf>,
    /// Whether the file cannot be read, so that settings may be missing.
    pub is_incomplete: bool,
}

impl Sources {
    /// A setting of another source than the file and the environment.
    pub fn add(&mut self, name: &str, text: String, source: &str) {
        self.read.push(source.to_owned());
        self.write(name, text, source.to_owned());
    }

    fn write(&mut self, name: &str, text: String, source: String) {
        self.unreadable.remove(name);
        self.written.insert(name.to_owned(), RawSetting { text, source });
    }

    /// Every setting of a file. A file that is not TOML gives no setting.
    pub fn add_file(&mut self, path: &Path) {
        let shown = path.display().to_string();
        self.file = Some(path.to_owned());
        self.read.push(shown.clone());
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                self.is_incomplete = true;
                return self.problems.push(Problem::of_file(&shown, error));
            }
        };
        let (table, faults) = DeTable::parse_recoverable(&text);
        for fault in faults.iter().take(MAX_SYNTAX_FAULTS) {
            // The parser's whole error quotes the line at fault, which may contain a secret: only its place is told.
            let line = fault.span().map_or(1, |span| line_at(&text, span.start));
            let message = format!("line {line} is not valid TOML: {}", fault.message());
            self.problems.push(Problem::of_file(&shown, message));
        }
        if !faults.is_empty() {
            self.is_incomplete = true;
            return;
        }
        let mut settings = Vec::new();
        flatten("", table.get_ref(), &mut settings);
        for (name, value, at) in settings {
            self.write(&name, value, format!("{shown}:{}", line_at(&text, at)));
        }
    }

    /// Every variable that is a setting, or names a file with a secret. An empty one counts as unset.
    pub fn add_environment(&mut self, environment: impl IntoIterator<Item = (String, String)>) {
        let mut set = BTreeMap::new();
        let mut files = Vec::new();
        for (variable, value) in environment {
            let Some(rest) = variable.strip_prefix(ENV_PREFIX) else { continue };
            let name = rest.to_ascii_lowercase().replace("__", ".");
            if value.trim().is_empty() && !TAKE_EMPTY.contains(&name.as_str()) {
                continue;
            }
            match name.strip_suffix(FILE_SUFFIX).filter(|of| is_known(of) && !is_known(&name)) {
                Some(of) => files.push((of.to_owned(), variable, value)),
                None => {
                    self.add(&name, value, &variable);
                    set.insert(name, variable);
                }
            }
        }
        for (name, variable, path) in files {
            let text = if !SECRETS.contains(&name.as_str()) {
                Err(format!("cannot be read from a file; these can: {}", SECRETS.join(", ")))
            } else if let Some(other) = set.get(&name) {
                Err(format!("is set by {other} too: leave one of the two out"))
            } else {
                read_secret(&path)
            };
            self.read.push(format!("{variable}={}", shown_path(&path)));
            match text {
                Ok(text) => self.write(&name, text, format!("{variable}={path}")),
                Err(fault) => {
                    self.written.remove(&name);
                    self.problems.push(Problem::at(&name, &variable, fault));
                    self.unreadable.insert(name);
                }
            }
        }
    }
}

/// The content of the file, without the newline at its end; or why it cannot be had.
fn read_secret(path: &str) -> Result<String, String> {
    let read = || -> Result<String, String> {
        let found = std::fs::metadata(path).map_err(|error| error.to_string())?;
        // Reading a pipe would wait for its writer, and a reload could not read it again.
        if !found.is_file() {
            return Err("it is no regular file".to_owned());
        }
        let file = File::open(path).map_err(|error| error.to_string())?;
        let mut text = String::new();
        let size = file.take(MAX_SECRET_FILE + 1).read_to_string(&mut text);
        if size.map_err(|error| error.to_string())? as u64 > MAX_SECRET_FILE {
            return Err(format!("it is larger than {MAX_SECRET_FILE} bytes"));
        }
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.trim().is_empty() { Err("it is empty".to_owned()) } else { Ok(line.to_owned()) }
    };
    read().map_err(|reason| format!("cannot be read from {}: {reason}", shown_path(path)))
}

/// The path; or words in its place where somebody may have put the secret itself there.
fn shown_path(path: &str) -> &str {
    let is_key = path.len() >= 32 && !path.contains(['/', '.']);
    if path.contains("://") || is_key { "a file whose path seems to be the secret itself" } else { path }
}

/// The number of the line at this byte.
fn line_at(text: &str, at: usize) -> usize {
    text.char_indices().take_while(|(index, _)| *index < at).filter(|(_, character)| *character == '\n').count() + 1
}

/// Turns tables into dotted names and lists into text with commas. Each comes with the byte at which it begins.
fn flatten(prefix: &str, table: &DeTable<'_>, settings: &mut Vec<(String, String, usize)>) {
    for (key, value) in table {
        let key = key.get_ref();
        let name = if prefix.is_empty() { key.to_string() } else { format!("{prefix}.{key}") };
        let at = value.span().start;
        match value.get_ref() {
            DeValue::Table(inner) => flatten(&name, inner, settings),
            DeValue::Array(items) => {
                let items: Vec<String> = items.iter().map(|item| text_of(item.get_ref())).collect();
                settings.push((name, items.join(","), at));
            }
            other => settings.push((name, text_of(other), at)),
        }
    }
}

fn text_of(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => number.to_string(),
            Err(_) => number.to_string(),
        },
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        // No setting takes these.
        DeValue::Array(_) | DeValue::Table(_) => "{}".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_byte_is_counted_from_one() {
        let text = "a\nbé\nc";
        for (at, line) in [(0, 1), (1, 1), (2, 2), (4, 2), (6, 3), (100, 3)] {
            assert_eq!(line_at(text, at), line, "{at}");
        }
    }

    #[test]
    fn values_of_toml_become_the_text_that_the_environment_has() {
        let text = "a = 0x10\nb = 1_000\nc = true\n[d]\ne = ['x', 2]\nf.g = [[1]]\n'h.i' = 99999999999999999999\n";
        let table = DeTable::parse(text).expect("TOML");
        let mut settings = Vec::new();
        flatten("", table.get_ref(), &mut settings);
        let found: Vec<_> = settings.iter().map(|(name, value, at)| (&**name, &**value, line_at(text, *at))).collect();
        let expected = [
            ("a", "16", 1),
            ("b", "1000", 2),
            ("c", "true", 3),
            ("d.e", "x,2", 5),
            ("d.f.g", "{}", 6),
            ("d.h.i", "99999999999999999999", 7),
        ];
        assert_eq!(found, expected);
    }
}
