//! What ARCHITECTURE.md says and no compiler checks.

use std::path::{Path, PathBuf};

/// Each room, and what it may not name.
const WALLS: &[(&str, &[&str])] = &[
    (
        "src/domain",
        &[
            "crate::api",
            "crate::cli",
            "crate::clock",
            "crate::config",
            "crate::egress",
            "crate::engine",
            "crate::metrics",
            "crate::store",
            "rusqlite",
            "tokio_postgres",
            "tokio",
            "axum",
            "hyper",
            "serde",
        ],
    ),
    ("src/clock.rs", &["crate::api", "crate::cli", "crate::config", "crate::egress", "crate::engine", "crate::store"]),
    ("src/metrics.rs", &["crate::"]),
    ("src/permits.rs", &["crate::"]),
    ("src/private_files.rs", &["crate::"]),
    ("src/table.rs", &["crate::"]),
    ("src/waiting.rs", &["crate::"]),
    ("src/store", &["crate::api", "crate::cli", "crate::config", "crate::egress", "crate::engine", "axum", "hyper"]),
    (
        "src/egress",
        &["crate::api", "crate::cli", "crate::config", "crate::engine", "rusqlite", "tokio_postgres", "axum"],
    ),
    (
        "src/engine",
        &["crate::api", "crate::web", "crate::cli", "crate::config", "rusqlite", "tokio_postgres", "axum", "hyper"],
    ),
    ("src/api", &["crate::engine", "crate::cli", "crate::config", "crate::web", "rusqlite", "tokio_postgres"]),
    (
        "src/web",
        &[
            "crate::engine",
            "crate::cli",
            "crate::config",
            "crate::egress",
            "crate::store",
            "crate::domain",
            "rusqlite",
            "tokio_postgres",
        ],
    ),
    ("src/config", &["crate::cli", "crate::engine", "crate::egress", "rusqlite", "tokio_postgres"]),
    ("src/cli", &["rusqlite", "tokio_postgres"]),
];

/// Longest file, in lines: a longer one is more than one room.
const MAX_LINES: usize = 650;

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
    for (room, forbidden) in WALLS {
        for path in files(room, "rs") {
            for (number, line) in read(&path).lines().enumerate() {
                let code = line.split("//").next().unwrap_or("");
                for name in *forbidden {
                    let named = code.contains(&format!("{name}::")) || code.contains(&format!("{name};"));
                    assert!(!named, "{}:{}: {room} does not know {name}", path.display(), number + 1);
                }
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
fn every_file_says_what_lives_in_it_and_is_one_room() {
    for root in ["src", "tests", "bench/src"] {
        for path in files(root, "rs") {
            let text = read(&path);
            assert!(text.starts_with("//!"), "{} has no header", path.display());
            assert!(text.lines().count() <= MAX_LINES, "{} is more than one room", path.display());
        }
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
