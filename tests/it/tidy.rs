//! What ARCHITECTURE.md says and no compiler checks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::imports::Imports;

/// What each file or folder of `src` may import from the others, from the ground floor up: only from those above it
/// in this list. `main.rs` calls `cli` and no more.
const FLOORS: &[(&str, &[&str])] = &[
    ("client_socket", &[]),
    ("domain", &[]),
    ("lock", &[]),
    ("private_files", &[]),
    ("tls", &[]),
    ("waiting", &[]),
    ("log_limit", &["lock"]),
    ("metrics", &["lock"]),
    ("permits", &["lock"]),
    ("heavy", &["domain", "permits", "waiting"]),
    ("table", &["lock"]),
    ("clock", &["domain", "lock"]),
    ("store", &["clock", "domain", "heavy", "lock", "log_limit", "private_files", "tls", "waiting"]),
    ("egress", &["clock", "domain", "lock", "permits", "store", "tls"]),
    ("engine", &["clock", "domain", "egress", "lock", "log_limit", "metrics", "store", "waiting"]),
    (
        "api",
        &["clock", "domain", "egress", "heavy", "lock", "log_limit", "metrics", "permits", "store", "table", "waiting"],
    ),
    ("web", &["api", "lock"]),
    ("connections", &["api", "lock"]),
    ("client_stream", &["connections"]),
    ("server", &["api", "client_socket", "client_stream", "connections", "log_limit"]),
    ("config", &["api", "domain", "store"]),
    ("telemetry", &["api", "config"]),
    (
        "lib",
        &["api", "client_stream", "clock", "config", "domain", "egress", "engine", "metrics", "server", "store", "web"],
    ),
    (
        "cli",
        &[
            "api",
            "clock",
            "config",
            "domain",
            "egress",
            "lib",
            "lock",
            "private_files",
            "server",
            "store",
            "telemetry",
            "tls",
        ],
    ),
];

/// Crates that only these files and folders of `src` use: SQL, HTTP, the command line, and all that does I/O.
const CRATES: &[(&str, &[&str])] = &[
    ("anyhow", &["cli", "lib", "main"]),
    ("axum", &["api", "cli", "server", "web"]),
    ("clap", &["cli"]),
    ("deadpool_postgres", &["store"]),
    ("hickory_resolver", &["egress"]),
    ("hyper", &["api", "egress", "server", "client_stream"]),
    ("maud", &["web"]),
    ("rusqlite", &["store"]),
    ("serde", &["api", "store"]),
    (
        "tokio",
        &[
            "api",
            "cli",
            "client_socket",
            "connections",
            "egress",
            "engine",
            "heavy",
            "lib",
            "main",
            "metrics",
            "permits",
            "server",
            "store",
            "waiting",
            "client_stream",
        ],
    ),
    ("tokio_postgres", &["store"]),
];

/// Most files that import each other in a circle.
const MAX_CIRCLE: usize = 3;

/// Longest file, in lines: a longer one has more than one subject.
const MAX_LINES: usize = 650;

/// Widest line, in characters: the `max_width` of rustfmt, which breaks neither texts nor templates.
const MAX_WIDTH: usize = 120;

fn files(root: &str, extension: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(root);
    if root.is_file() {
        return vec![root];
    }
    let mut found = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a file")
}

#[test]
fn imports_go_down_only() {
    let units = Imports::read(Path::new("src")).units();
    let known: BTreeSet<&str> = FLOORS.iter().map(|(unit, _)| *unit).collect();
    assert_eq!(units.keys().map(String::as_str).collect::<BTreeSet<_>>(), known, "FLOORS names every unit of src");
    for (floor, (unit, allowed)) in FLOORS.iter().enumerate() {
        let below: Vec<&str> = FLOORS[..floor].iter().map(|(unit, _)| *unit).collect();
        for name in *allowed {
            assert!(below.contains(name), "{name} is not below {unit}");
        }
        for (other, file) in &units[*unit] {
            assert!(allowed.contains(&other.as_str()), "src/{file} imports {other}, which {unit} may not");
        }
    }
}

#[test]
fn few_files_import_each_other_in_a_circle() {
    for circle in Imports::read(Path::new("src")).circles() {
        assert!(
            circle.len() <= MAX_CIRCLE,
            "these files import each other; does each import name the file that defines the item? {circle:?}"
        );
    }
}

#[test]
fn crates_that_do_io_are_used_where_they_may_be() {
    for path in files("src", "rs") {
        let below_src = path.to_string_lossy().split_once("src/").expect("below src").1.to_owned();
        let unit = below_src.split(['/', '.']).next().unwrap_or("");
        let text = read(&path);
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or("");
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            for (name, units) in CRATES {
                let path = format!("{name}::");
                let named = code
                    .match_indices(&path)
                    .filter(|(at, _)| !code[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
                assert!(
                    named.count() == 0 || units.contains(&unit),
                    "{below_src}:{}: {unit} has no {name}",
                    number + 1
                );
            }
        }
    }
}

#[test]
fn only_the_store_has_sql() {
    for path in files("src", "rs") {
        if path.to_string_lossy().contains("/store/") {
            continue;
        }
        for statement in ["SELECT ", "INSERT INTO", "UPDATE endpoints", "DELETE FROM", "PRAGMA "] {
            assert!(!read(&path).contains(statement), "{}: {statement}", path.display());
        }
    }
}

#[test]
fn every_file_says_what_it_holds_and_has_one_subject() {
    for root in ["src", "tests", "bench/src"] {
        for path in files(root, "rs") {
            let text = read(&path);
            assert!(text.starts_with("//!"), "{} has no header", path.display());
            assert!(text.lines().count() <= MAX_LINES, "{} has more than one subject", path.display());
        }
    }
}

#[test]
fn no_line_is_wider_than_a_screen() {
    for path in ["src", "tests/it"].iter().flat_map(|root| files(root, "rs")) {
        for (number, line) in read(&path).lines().enumerate() {
            let width = line.chars().count();
            assert!(width <= MAX_WIDTH, "{}:{}: {width} characters", path.display(), number + 1);
        }
    }
}

#[test]
fn pages_read_answers_of_the_api_by_their_types() {
    let lookups =
        [".pointer(", ".as_object()", ".as_array()", ".as_bool()", ".as_u64()", "[\"data\"]", "[\"attributes\"]"];
    for path in files("src/web", "rs") {
        let text = read(&path);
        for lookup in lookups {
            // `&["data"]` is a list of names.
            let found = text.match_indices(lookup).any(|(at, _)| !text[..at].ends_with('&'));
            assert!(!found, "{}: {lookup} reads JSON by a name", path.display());
        }
    }
}

#[test]
fn locks_are_those_without_poisoning() {
    for path in files("src", "rs").iter().filter(|path| !path.ends_with("src/lock.rs")) {
        assert!(!read(path).contains("PoisonError"), "{}: crate::lock has the locks", path.display());
    }
}

#[test]
fn every_code_that_the_api_can_answer_is_met_in_a_test() {
    let tests: String =
        files("tests/it", "rs").iter().filter(|path| !path.ends_with("tidy.rs")).map(|p| read(p)).collect();
    for code in aldaba::api::Code::ALL {
        // A panic cannot be asked for over HTTP: what answers it is tested in `src/api`.
        if code.name() == "internal_error" {
            continue;
        }
        assert!(tests.contains(&format!("\"{}\"", code.name())), "no test meets {}", code.name());
    }
}

#[test]
fn no_secret_type_derives_debug() {
    for (file, name) in [
        ("src/domain/secret.rs", "struct Secret("),
        ("src/domain/credential.rs", "struct Credential("),
        ("src/domain/account.rs", "struct PlainKey("),
        ("src/domain/account.rs", "struct KeyHash("),
    ] {
        let text = read(&files(file, "rs")[0]);
        let before = &text[..text.find(name).expect(name)];
        let derive = before.rfind("#[derive").map_or("", |at| &before[at..]);
        assert!(!derive.contains("Debug"), "{name} derives Debug");
    }
}

#[test]
fn migrations_are_twins() {
    let names = |store: &str| {
        let folder = std::fs::read_dir(format!("migrations/{store}")).expect("a folder");
        let mut names: Vec<_> = folder.map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names("sqlite"), names("postgres"));
}

/// What is not ours is named too. A letter stands for any name.
const FOREIGN: [&str; 3] = ["std", "tokio", "aldaba"];

/// Whether there is a module `first` in which something begins with `last`: documents may shorten the name of a test.
fn is_named(first: &str, last: &str, sources: &[(PathBuf, String)]) -> bool {
    let is_part = |path: &Path, name: &str| path.iter().any(|part| Path::new(part).file_stem() == Some(name.as_ref()));
    sources.iter().filter(|(path, _)| is_part(path, first)).any(|(path, text)| {
        let kinds = ["fn", "mod", "struct", "enum", "const", "static", "trait", "type"];
        is_part(path, last) || kinds.iter().any(|kind| text.contains(&format!("{kind} {last}")))
    })
}

#[test]
fn files_and_modules_that_comments_and_documents_name_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = ["src", "tests", "bench", "examples"].iter().flat_map(|root| files(root, "rs"));
    let sources: Vec<(PathBuf, String)> = listed.map(|path| (path.clone(), read(&path))).collect();
    let of_root = root.read_dir().expect("a folder").map(|entry| entry.expect("an entry").path());
    let of_root = of_root.filter(|path| path.extension().is_some_and(|ending| ending == "md")).collect();
    let documents: Vec<PathBuf> = [files("docs", "md"), files("bench", "md"), of_root].concat();
    let known: Vec<&PathBuf> = sources.iter().map(|(path, _)| path).chain(&documents).collect();
    let comments = sources.iter().map(|(path, text)| {
        (path.clone(), text.lines().map(str::trim).filter(|line| line.starts_with("//")).collect::<Vec<_>>().join("\n"))
    });
    // Guides name the files that their readers write, and the list of changes what there was.
    let is_past = |path: &Path| path.ends_with("CHANGELOG.md");
    let texts = documents.iter().filter(|path| !path.to_string_lossy().contains("/guides/") && !is_past(path));
    let texts = texts.map(|path| (path.clone(), read(path)));
    for (path, text) in comments.chain(texts) {
        let words = text.split(|c: char| !(c.is_alphanumeric() || "_./-".contains(c)));
        // What begins with two slashes is the rest of an address; an ending alone names no file.
        let is_file = |word: &str| Path::new(word).extension().is_some_and(|ending| ending == "rs" || ending == "md");
        let names = words.filter(|word| is_file(word) && !word.starts_with("//"));
        for word in names.map(|word| word.trim_start_matches(['.', '/'])) {
            assert!(known.iter().any(|path| path.ends_with(word)), "{}: there is no {word}", path.display());
        }
        for quoted in text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)) {
            let name = quoted.trim_start_matches("crate::").trim_end_matches(['…', '*', '(', ')']);
            let is_name = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_:".contains(&b));
            let Some((first, last)) = name.split_once("::").filter(|_| is_name) else { continue };
            let last = last.rsplit("::").next().unwrap_or(last);
            let exists = first.len() == 1 || FOREIGN.contains(&first) || is_named(first, last, &sources);
            assert!(exists, "{}: there is no {quoted}", path.display());
        }
    }
}
