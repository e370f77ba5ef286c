//! Every code block of the guides runs, in its own language, against a real server.
//!
//! What a fence says after its language: nothing (`sh` runs in one session for each guide; `python`, `javascript` and
//! `php` run by themselves), a file's name (the block is written there), `install` (set-up that `scripts/test` has
//! done), or one of `OF_PACKAGES`. `json` must be JSON; `text` and `http` are only shown. `<!-- test: … -->` runs in
//! the same session and is not shown: it checks a guide's claims.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use aldaba::web::GUIDES;

use crate::app::App;

/// The server that the guides name.
const SHOWN: &str = "http://127.0.0.1:8080";

/// What a fence says of a block that `tests/packages/test_guide.py` runs.
const OF_PACKAGES: [&str; 9] =
    ["commands", "deb", "docker", "downgrade", "image", "kubernetes", "registry", "tarball", "upgrade"];

/// Longest run of a guide.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

/// A piece of a guide that means something to this test.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    /// The words after the fence, or `test`.
    info: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text_of(name: &str) -> String {
    let path = root().join("docs/guides").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn blocks(guide: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut rest = guide;
    loop {
        let fence = rest.find("\n```");
        let comment = rest.find("\n<!-- test:");
        let (info, text, after) = match (fence, comment) {
            (None, None) => return blocks,
            (Some(fence), comment) if comment.is_none_or(|comment| fence < comment) => {
                let (info, body) = rest[fence + 4..].split_once('\n').expect("a fence has lines");
                let (text, after) = body.split_once("\n```").expect("a fence ends");
                (info, text, after)
            }
            (_, comment) => {
                let body = &rest[comment.expect("one of them") + "\n<!-- test:".len()..];
                let (text, after) = body.split_once("-->").expect("a comment ends");
                ("test", text, after)
            }
        };
        blocks.push(Block { info: info.trim().to_owned(), text: text.to_owned() });
        rest = after;
    }
}

/// The session of a guide as one script; files are written where they stand.
fn script(blocks: &[Block], address: &str) -> String {
    let mut script = String::from("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n");
    for (number, Block { info, text }) in blocks.iter().enumerate() {
        let text = text.replace(SHOWN, address);
        let quoted = |command: &str| format!("{command} <<'END OF BLOCK'\n{text}\nEND OF BLOCK\n");
        let words: Vec<&str> = info.split_whitespace().collect();
        script.push_str(&format!("echo '== block {number}: {info}' >&2\n"));
        match words.as_slice() {
            ["sh" | "test"] => script.push_str(&format!("{text}\n")),
            ["python"] => script.push_str(&quoted("python3 -")),
            ["javascript"] => script.push_str(&quoted("node --input-type=module")),
            ["php"] => script.push_str(&quoted("php")),
            ["python" | "javascript" | "php" | "rust", file] => script.push_str(&quoted(&format!("cat > {file}"))),
            ["json"] => {
                let parsed = serde_json::from_str::<serde_json::Value>(&text);
                assert!(parsed.is_ok(), "{parsed:?}: {text}");
            }
            ["sh", "install"] | ["text" | "http"] => {}
            ["sh", kind] if OF_PACKAGES.contains(kind) => {}
            other => panic!("a block that is {other:?}"),
        }
    }
    script
}

/// A folder with what the guides expect on the path under other names.
fn programs(folder: &Path) -> String {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_aldaba"));
    let built = program.parent().expect("a folder");
    let axum = built.join("examples/receiver");
    assert!(axum.exists(), "{} is missing: run `cargo test` or `cargo build --examples`", axum.display());
    let bin = folder.join("bin");
    std::fs::create_dir(&bin).expect("a folder");
    std::os::unix::fs::symlink(axum, bin.join("receiver-axum")).expect("linked");
    std::os::unix::fs::symlink(&program, bin.join("aldaba")).expect("linked");
    let modules = root().join("target/node/node_modules");
    assert!(modules.exists(), "run ./scripts/test once, which installs what the guides use");
    std::os::unix::fs::symlink(modules, folder.join("node_modules")).expect("linked");
    let python = root().join("target/python/bin");
    format!("{}:{}:{}", bin.display(), python.display(), std::env::var("PATH").expect("a path"))
}

async fn runs(slug: &str) {
    session(slug, &text_of(&format!("{slug}.md"))).await;
}

/// Runs the blocks of a text as one session beside a server of its own.
async fn session(name: &str, text: &str) {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "300ms,600ms")]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = programs(folder.path());
    let work = folder.path().join("work");
    std::fs::create_dir(&work).expect("a folder");
    let script = script(&blocks(text), &format!("http://{}", app.address));
    std::fs::write(folder.path().join("session.sh"), script).expect("written");
    let log = std::fs::File::create(folder.path().join("log")).expect("a file");
    let mut command = tokio::process::Command::new("bash");
    command.arg("../session.sh").current_dir(&work).kill_on_drop(true);
    command.env("PATH", path).env("API_KEY", &app.key).env("OPERATOR_KEY", &app.operator);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ALDABA_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log);
    let ended = tokio::time::timeout(PATIENCE, command.status()).await;
    let log = std::fs::read(folder.path().join("log")).expect("a log");
    let log = String::from_utf8_lossy(&log);
    let status = ended.unwrap_or_else(|_| panic!("it takes too long:\n{log}")).expect("bash runs");
    assert!(status.success(), "{name}:\n{log}");
}

macro_rules! guides_run {
    ($($test:ident $slug:literal)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            runs($slug).await;
        })*

        #[test]
        fn every_guide_is_run() {
            let run = [$($slug),*];
            for guide in GUIDES {
                assert!(run.contains(&guide.slug), "{} is not run", guide.slug);
            }
        }
    };
}

guides_run! {
    the_guide_quick_start_runs "quick-start"
    the_guide_receive_and_verify_runs "receive-and-verify"
    the_guide_fit_an_endpoint_runs "fit-an-endpoint"
    the_guide_rotate_a_secret_runs "rotate-a-secret"
    the_guide_when_a_receiver_is_down_runs "when-a-receiver-is-down"
    the_guide_replay_after_an_outage_runs "replay-after-an-outage"
    the_guide_idempotent_publishing_runs "idempotent-publishing"
    the_guide_dashboard_runs "dashboard"
    the_guide_production_runs "production"
    the_guide_back_up_and_restore_runs "back-up-and-restore"
    the_guide_errors_runs "errors"
    the_guide_life_of_a_delivery_runs "life-of-a-delivery"
    the_guide_signatures_runs "signatures"
    the_guide_rate_limits_runs "rate-limits"
    the_guide_guarantees_runs "guarantees"
    the_guide_move_here_runs "move-here"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_readme_runs() {
    let text = std::fs::read_to_string(root().join("README.md")).expect("the README");
    session("README", &text).await;
}

/// Every file in these folders that ends in `.md`.
fn pages(folder: &str) -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(root().join(folder)).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading.to_lowercase().chars().filter(kept).collect::<String>().trim().replace(' ', "-")
}

#[test]
fn every_link_between_the_documents_leads_to_a_file_and_a_heading() {
    for page in ["", "docs", "docs/decisions", "docs/guides", "docs/guides/es", "bench"].into_iter().flat_map(pages) {
        let text = std::fs::read_to_string(&page).expect("a page");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next()) {
            if link.contains("://") || link.starts_with('/') {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            // Both languages of a guide have one address, and the drawing stands beside the English one.
            let is_spanish = page.parent().is_some_and(|folder| folder.ends_with("es"));
            let path =
                if is_spanish && path == "life-of-a-delivery.svg" { format!("../{path}") } else { path.to_owned() };
            let target = if path.is_empty() { page.clone() } else { page.with_file_name(path) };
            assert!(target.exists(), "{}: {link}", page.display());
            if !heading.is_empty() {
                let target = std::fs::read_to_string(&target).expect("a page");
                let headings =
                    target.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#'));
                assert!(headings.map(anchor).any(|found| found == heading), "{}: {link}", page.display());
            }
        }
    }
}

#[test]
fn both_languages_of_a_guide_show_the_same_code() {
    for guide in GUIDES {
        let (english, spanish) = (text_of(&format!("{}.md", guide.slug)), text_of(&format!("es/{}.md", guide.slug)));
        assert_eq!(blocks(&english), blocks(&spanish), "{}", guide.slug);
        for text in [english, spanish] {
            assert!(text.starts_with("# ") && text.split("\n\n").count() > 2, "{}: title, summary, text", guide.slug);
        }
    }
}

#[test]
fn the_axum_receiver_of_the_guide_is_the_example_that_is_built() {
    let guide = blocks(&text_of("receive-and-verify.md"));
    let shown = guide.iter().find(|block| block.info.starts_with("rust ")).expect("a block in Rust");
    let built = std::fs::read_to_string(root().join("examples/receiver.rs")).expect("the example");
    assert_eq!(shown.text.trim(), built.trim());
}

#[tokio::test]
async fn every_link_between_the_pages_leads_somewhere() {
    let app = App::start().await;
    let pages: Vec<String> = aldaba::web::groups()
        .iter()
        .flat_map(|group| group.operations.iter().map(|call| call.page()))
        .chain(GUIDES.iter().map(|guide| format!("/docs/guides/{}", guide.slug)))
        .chain(["/docs".to_owned(), "/llms.txt".to_owned()])
        .collect();
    let mut known = std::collections::BTreeSet::new();
    for page in &pages {
        for language in ["en", "es"] {
            let call = crate::app::Call::new(app.address, "GET", page).header("accept-language", language);
            let answer = call.send().await.expect(200);
            let text = String::from_utf8(answer.text.to_vec()).expect("text");
            assert!(text.len() < 100_000, "{page} is {} bytes", text.len());
            if page != "/llms.txt" {
                assert!(text.contains(&format!("<html lang=\"{language}\">")), "{page} in {language}");
                assert!(answer.header("content-security-policy").starts_with("default-src 'none'"));
            }
            let links = text.split("href=\"").skip(1).chain(text.split("src=\"").skip(1));
            let links = links.filter_map(|rest| rest.split('"').next()).filter(|link| link.starts_with('/'));
            known.extend(links.map(|link| link.replace("&amp;", "&")));
        }
    }
    for link in known {
        let path = link.split('#').next().unwrap_or("");
        let answer = crate::app::Call::new(app.address, "GET", path).send().await.expect(200);
        if let Some((_, anchor)) = link.split_once('#') {
            let text = String::from_utf8(answer.text.to_vec()).expect("text");
            assert!(text.contains(&format!("id=\"{anchor}\"")), "{link}: no such heading");
        }
    }
    crate::app::Call::new(app.address, "GET", "/docs/nothing/here").send().await.refused(404, "not_found", "");
}
