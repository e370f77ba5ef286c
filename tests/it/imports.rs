//! The imports between the files of `src`, read from their text: `use` lines, and paths that begin with `crate`.
//!
//! A name that a file passes on with `use` counts as an import of the file that defines it. The unit tests at the end
//! of a file do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A path without `crate`, such as `["store", "sqlite"]`. The crate's root is empty.
type Names = Vec<String>;

/// How many times a name may be passed on before its definition.
const MAX_HOPS: usize = 8;

/// Every file of a crate with the paths that it names.
pub struct Imports {
    /// Of each file, by its module: the names that it imports, each with its whole path.
    names: BTreeMap<Names, BTreeMap<String, Names>>,
    /// Of each file, by its module: the whole paths that it names.
    paths: BTreeMap<Names, BTreeSet<Names>>,
}

impl Imports {
    /// Reads the files below a folder. `main.rs` is another crate.
    pub fn read(root: &Path) -> Self {
        let mut texts = BTreeMap::new();
        read_folder(root, &Vec::new(), &mut texts);
        let mut imports = Self { names: BTreeMap::new(), paths: BTreeMap::new() };
        for (module, text) in &texts {
            let (uses, code) = divided(text);
            let (mut names, mut paths) = (BTreeMap::new(), BTreeSet::new());
            let mut found = Vec::new();
            for tree in &uses {
                expand(tree, &[], &mut found);
            }
            for (path, name) in found {
                if let Some(path) = absolute(module, &path, &texts) {
                    paths.insert(path.clone());
                    names.insert(name, path);
                }
            }
            for path in code.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':') {
                let path = segments(path);
                let [first, rest @ ..] = path.as_slice() else { continue };
                let imported: Option<&Names> = names.get(first);
                let whole = imported.map(|imported| [imported, rest].concat());
                if !rest.is_empty()
                    && let Some(path) = whole.or_else(|| absolute(module, &path, &texts))
                {
                    paths.insert(path);
                }
            }
            imports.names.insert(module.clone(), names);
            imports.paths.insert(module.clone(), paths);
        }
        imports
    }

    /// The units of the crate (its top-level files and folders), and for each unit the other units that it names and a
    /// file that does so. The root is `lib`.
    pub fn units(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let unit = |path: &Names| match path.first() {
            Some(first) if self.paths.contains_key(std::slice::from_ref(first)) => first.clone(),
            _ => "lib".to_owned(),
        };
        let mut units: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for (module, paths) in &self.paths {
            let own = unit(module);
            let known = units.entry(own.clone()).or_default();
            let others = paths.iter().map(unit).filter(|other| *other != own);
            known.extend(others.map(|other| (other, module.join("/"))));
        }
        units
    }

    /// The groups of two files and more that import each other in a circle.
    pub fn circles(&self) -> Vec<BTreeSet<String>> {
        let edges: BTreeMap<&Names, BTreeSet<Names>> = self
            .paths
            .iter()
            .map(|(module, paths)| (module, paths.iter().map(|path| self.definition(path.clone())).collect()))
            .collect();
        let reached: BTreeMap<&Names, BTreeSet<&Names>> =
            self.paths.keys().map(|module| (module, reach(module, &edges))).collect();
        let mut circles = BTreeSet::new();
        for (module, found) in &reached {
            let circle: BTreeSet<String> = found
                .iter()
                .filter(|other| *other != module && reached[*other].contains(module))
                .map(|other| other.join("/"))
                .collect();
            if !circle.is_empty() {
                circles.insert(circle.into_iter().chain([module.join("/")]).collect::<BTreeSet<_>>());
            }
        }
        circles.into_iter().collect()
    }

    /// The file that defines what a path names.
    fn definition(&self, mut path: Names) -> Names {
        for _ in 0..MAX_HOPS {
            let file = (0..=path.len()).rev().find(|length| self.paths.contains_key(&path[..*length])).unwrap_or(0);
            let passed_on = path.get(file).and_then(|name| self.names[&path[..file]].get(name));
            match passed_on {
                Some(origin) if !path.starts_with(origin) => path = [origin, &path[file + 1..]].concat(),
                _ => return path[..file].to_vec(),
            }
        }
        path
    }
}

fn read_folder(folder: &Path, module: &Names, texts: &mut BTreeMap<Names, String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let inner = [module.as_slice(), std::slice::from_ref(&name)].concat();
        if path.is_dir() {
            read_folder(&path, &inner, texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") && name != "main" {
            let module = if name == "mod" || name == "lib" { module.clone() } else { inner };
            texts.insert(module, std::fs::read_to_string(&path).expect("a file"));
        }
    }
}

/// The `use` trees of a file, and the rest of its code. Comments and unit tests are left out.
fn divided(text: &str) -> (Vec<String>, String) {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or("");
    let (mut uses, mut code) = (Vec::new(), String::new());
    let mut lines = text.lines().map(without_comment);
    while let Some(line) = lines.next() {
        let Some(tree) = without_visibility(line.trim_start()).strip_prefix("use ") else {
            code.push_str(&without_scope(line));
            code.push('\n');
            continue;
        };
        let mut tree = tree.to_owned();
        while !tree.contains(';') {
            tree.push_str(lines.next().expect("a use ends"));
        }
        uses.push(tree.split(';').next().unwrap_or("").to_owned());
    }
    (uses, code)
}

/// A line up to its comment. The slashes of a URL begin none.
fn without_comment(line: &str) -> &str {
    let comment = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
    comment.map_or(line, |(at, _)| &line[..at])
}

fn without_visibility(line: &str) -> &str {
    match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ").map_or(rest, |(_, rest)| rest),
        Some(rest) => rest.trim_start(),
        None => line,
    }
}

/// A line without the path in `pub(in path)`, which is no import.
fn without_scope(line: &str) -> String {
    match line.split_once("pub(in ").and_then(|(before, rest)| Some((before, rest.split_once(')')?.1))) {
        Some((before, after)) => format!("{before}{after}"),
        None => line.to_owned(),
    }
}

fn segments(path: &str) -> Names {
    path.split("::").map(|name| name.trim().trim_matches(':').to_owned()).filter(|name| !name.is_empty()).collect()
}

/// Every path of a `use` tree, with the name by which the file knows it.
fn expand(tree: &str, prefix: &[String], found: &mut Vec<(Names, String)>) {
    if let Some(open) = tree.find('{') {
        let prefix = [prefix, &segments(&tree[..open])].concat();
        let inner = &tree[open + 1..tree.rfind('}').unwrap_or(tree.len())];
        let (mut depth, mut begin) = (0_usize, 0);
        for (at, c) in inner.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    expand(&inner[begin..at], &prefix, found);
                    begin = at + 1;
                }
                _ => {}
            }
        }
        return expand(&inner[begin..], &prefix, found);
    }
    if tree.trim().is_empty() {
        return;
    }
    let (path, alias) = tree.split_once(" as ").map_or((tree, None), |(path, alias)| (path, Some(alias.trim())));
    let mut path = [prefix, &segments(path)].concat();
    if path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    let Some(last) = path.last() else { return };
    let name = alias.map_or_else(|| last.clone(), str::to_owned);
    found.push((path, name));
}

/// A path as it is written in a module, from the crate's root; `None` for a path into another crate.
fn absolute(module: &Names, path: &[String], files: &BTreeMap<Names, String>) -> Option<Names> {
    let (first, rest) = path.split_first()?;
    match first.as_str() {
        "crate" => Some(rest.to_vec()),
        "self" => Some([module.as_slice(), rest].concat()),
        "super" => {
            let above = path.iter().take_while(|name| *name == "super").count();
            let base = &module[..module.len().checked_sub(above)?];
            Some([base, &path[above..]].concat())
        }
        _ => {
            let child = [module.as_slice(), std::slice::from_ref(first)].concat();
            files.contains_key(&child).then(|| [module.as_slice(), path].concat())
        }
    }
}

/// Every file to which the imports of this one lead.
fn reach<'a>(from: &'a Names, edges: &'a BTreeMap<&'a Names, BTreeSet<Names>>) -> BTreeSet<&'a Names> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(module) = open.pop() {
        for next in &edges[module] {
            if next != module && reached.insert(next) {
                open.push(next);
            }
        }
    }
    reached
}

#[test]
fn a_circle_is_found_through_a_name_that_is_passed_on() {
    let folder = tempfile::tempdir().expect("a folder");
    for (file, text) in [
        ("lib.rs", "mod a;\nmod b;\nmod c;\n"),
        ("a/mod.rs", "//! A\nmod deep;\npub use deep::Deep;\nuse crate::c::{self, C};\n"),
        ("a/deep.rs", "pub struct Deep;\nfn f() { crate::b::g(); } // crate::c\n"),
        ("b.rs", "use std::fmt;\nuse super::a::Deep;\n#[cfg(test)]\nmod tests {\n use crate::c::C;\n}\n"),
        ("c.rs", "pub struct C;\n"),
    ] {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, text).expect("written");
    }
    let imports = Imports::read(folder.path());
    let circles: Vec<Vec<String>> = imports.circles().into_iter().map(|circle| circle.into_iter().collect()).collect();
    assert_eq!(circles, [["a/deep", "b"]]);
    let units = imports.units();
    assert_eq!(units["a"].keys().collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(units["b"].keys().collect::<Vec<_>>(), ["a"]);
    assert!(units["c"].is_empty());
}
