//! How much work it can be to check data against a JSON Schema, counted from the schema alone.
//!
//! The work is counted in steps. References make a graph of a schema, so that a short schema can apply a subschema to
//! one value very often, and ever more often the deeper the value is. The count follows the graph level by level of the
//! data. It is never less than what `jsonschema` does. It may be more: of the properties that a value can have, it
//! takes the one that costs most, for each subschema by itself. A sum that has reached the highest number stays there:
//! that is beyond every bound.

use foldhash::HashMap;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::error::Words;

/// Steps for one value of the data. A step takes some 10 ns. So 256 KiB of data, which are 100,000 values at most, take
/// seconds and not hours.
const MAX_STEPS: u64 = 5_000;

/// Steps of all subschemas, each counted once. They bound the time and the memory that compiling takes.
const MAX_SIZE: u64 = 50_000;

/// Subschemas. Counting their steps takes less than 0.1 s.
const MAX_SUBSCHEMAS: usize = 5_000;

/// Subschemas that are applied within each other, from the top of the data to its deepest value. Each takes up to 1 KiB
/// of the 2 MiB that a thread has as its stack.
const MAX_NESTING: u64 = 600;

/// Levels of the deepest data: `serde_json` reads no deeper.
const MAX_LEVELS: usize = 128;

/// Steps of a keyword that compares the values of a list with each other: equal hashes can be forced.
const UNIQUE_STEPS: u64 = 100;

/// Steps of a check for a `format`.
const FORMAT_STEPS: u64 = 10;

/// Steps of a pattern with a group that is more than a group, or with a reference to one: such patterns backtrack.
const BACKTRACKING_STEPS: u64 = 1_000;

/// States of a pattern's automaton that are as much work as a step.
const STATES_PER_STEP: u64 = 16;

/// States of a class of characters, and of one by a Unicode property.
const CLASS_STATES: (u64, u64) = (8, 64);

/// Why a schema is not stored, although it may be valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TooHeavy {
    /// One value can take too many steps.
    Steps,
    /// It has too many subschemas, or they have too many steps.
    Size,
    /// Deep data would need too much stack.
    Nesting,
    /// A reference leads back to its own subschema for the same value.
    Circle,
    /// Where a reference leads is not known.
    Reference,
}

impl TooHeavy {
    /// What is allowed.
    pub fn words(self) -> Words {
        match self {
            Self::Steps => Words::new(
                format!(
                    "the check of one value may take up to {MAX_STEPS} steps: keywords, names, values of enum and \
                     parts of patterns, with all that $ref repeats"
                ),
                format!(
                    "comprobar un valor puede llevar hasta {MAX_STEPS} pasos: palabras clave, nombres, valores de enum \
                     y partes de patrones, con todo lo que $ref repite"
                ),
            ),
            Self::Size => Words::new(
                format!(
                    "it may have up to {MAX_SUBSCHEMAS} subschemas, and in them up to {MAX_SIZE} keywords, names, \
                     values of enum and parts of patterns"
                ),
                format!(
                    "puede tener hasta {MAX_SUBSCHEMAS} subesquemas, y en ellos hasta {MAX_SIZE} palabras clave, \
                     nombres, valores de enum y partes de patrones"
                ),
            ),
            Self::Nesting => Words::new(
                format!("up to {MAX_NESTING} subschemas may be applied within each other to deep data"),
                format!("hasta {MAX_NESTING} subesquemas pueden aplicarse uno dentro de otro a datos profundos"),
            ),
            Self::Circle => Words::new(
                "no $ref may lead back to its own subschema for the same value",
                "ningún $ref puede volver a su propio subesquema para el mismo valor",
            ),
            Self::Reference => Words::new(
                "a $ref is # with a JSON pointer or with an anchor that is there once, and beside it no subschema has \
                 an $id",
                "un $ref es # con un puntero JSON o con un ancla que aparece una sola vez, y junto a él ningún \
                 subesquema tiene un $id",
            ),
        }
    }
}

/// The most steps that one value of the data can take.
pub(super) fn steps(schema: &Value) -> Result<u64, TooHeavy> {
    let nodes = Graph::read(schema)?;
    let order = in_order(&nodes)?;
    most_steps(&nodes, &order)
}

/// A subschema: its own steps, and the other subschemas that it applies.
#[derive(Default)]
struct Node {
    steps: u64,
    /// Those that are applied to the same value, and whether that is a try: where it fails, it is made again to tell
    /// the faults.
    same: Vec<(usize, bool)>,
    /// Those that are applied to the values of an object.
    properties: Members,
    /// Those that are applied to the values of a list.
    items: Members,
    /// Whether it applies those for the same value once more, to find out what they have looked at.
    looks_again: bool,
}

/// Subschemas for the values within a value.
#[derive(Default)]
struct Members {
    /// One of these applies to a value.
    one_of: Vec<usize>,
    /// Any of these can apply as well.
    any: Vec<usize>,
}

impl Members {
    /// The most that a value can take.
    fn most(&self, taken: &[u64]) -> u64 {
        let one = self.one_of.iter().map(|index| taken[*index]).max().unwrap_or(0);
        self.any.iter().fold(one, |sum, index| sum.saturating_add(taken[*index]))
    }
}

impl Node {
    fn most_within(&self, taken: &[u64]) -> u64 {
        self.properties.most(taken).max(self.items.most(taken))
    }

    /// The subschemas for the values within a value.
    fn within(&self) -> impl Iterator<Item = usize> {
        let Members { one_of, any } = &self.properties;
        one_of.iter().chain(any).chain(&self.items.one_of).chain(&self.items.any).copied()
    }
}

/// The subschemas of a schema while they are read. The first is the whole schema.
struct Graph<'a> {
    root: &'a Value,
    names: Names<'a>,
    nodes: Vec<Node>,
    known: HashMap<*const Value, usize>,
    unread: Vec<(usize, &'a Value)>,
}

impl<'a> Graph<'a> {
    fn read(root: &'a Value) -> Result<Vec<Node>, TooHeavy> {
        let names = Names::of(root);
        let mut graph = Self { root, names, nodes: Vec::new(), known: HashMap::default(), unread: Vec::new() };
        graph.node(root);
        let mut size = 0_u64;
        while let Some((index, schema)) = graph.unread.pop() {
            graph.nodes[index] = graph.read_node(schema)?;
            size = size.saturating_add(graph.nodes[index].steps);
            if graph.nodes.len() > MAX_SUBSCHEMAS || size > MAX_SIZE {
                return Err(TooHeavy::Size);
            }
        }
        Ok(graph.nodes)
    }

    /// The index of a subschema, which is read later if it is new.
    fn node(&mut self, schema: &'a Value) -> usize {
        let next = self.nodes.len();
        let index = *self.known.entry(std::ptr::from_ref(schema)).or_insert(next);
        if index == next {
            self.nodes.push(Node::default());
            self.unread.push((index, schema));
        }
        index
    }

    /// The value of a keyword that takes a subschema, or a list of them.
    fn list(&mut self, value: &'a Value) -> Vec<usize> {
        match value {
            Value::Array(schemas) => schemas.iter().map(|schema| self.node(schema)).collect(),
            schema => vec![self.node(schema)],
        }
    }

    /// The value of a keyword that takes subschemas by name.
    fn map(&mut self, value: &'a Value) -> Vec<usize> {
        let schemas = value.as_object().into_iter().flat_map(|schemas| schemas.values());
        schemas.map(|schema| self.node(schema)).collect()
    }

    fn read_node(&mut self, schema: &'a Value) -> Result<Node, TooHeavy> {
        let mut node = Node { steps: 1, ..Node::default() };
        for (keyword, value) in schema.as_object().into_iter().flatten() {
            let mut steps = 1;
            match keyword.as_str() {
                "$ref" | "$dynamicRef" | "$recursiveRef" => {
                    let target = self.names.target(self.root, value)?;
                    node.same.push((self.node(target), false));
                }
                "allOf" | "then" | "else" => {
                    node.same.extend(self.list(value).into_iter().map(|index| (index, false)));
                }
                "anyOf" | "oneOf" | "not" | "if" => {
                    node.same.extend(self.list(value).into_iter().map(|index| (index, true)));
                }
                "dependentSchemas" | "dependencies" => {
                    // With lists of names in the place of subschemas, too.
                    steps = values(value);
                    node.same.extend(self.map(value).into_iter().map(|index| (index, false)));
                }
                "properties" => {
                    let map = self.map(value);
                    steps = map.len() as u64;
                    node.properties.one_of.extend(map);
                }
                "patternProperties" => {
                    let patterns = value.as_object().into_iter().flat_map(|patterns| patterns.keys());
                    steps = patterns.fold(0, |sum: u64, pattern| sum.saturating_add(pattern_steps(pattern)));
                    node.properties.any.extend(self.map(value));
                }
                "additionalProperties" => node.properties.one_of.extend(self.list(value)),
                "propertyNames" | "unevaluatedProperties" => node.properties.any.extend(self.list(value)),
                "items" | "prefixItems" | "additionalItems" => node.items.one_of.extend(self.list(value)),
                "contains" | "unevaluatedItems" => node.items.any.extend(self.list(value)),
                "pattern" => steps = value.as_str().map_or(1, pattern_steps),
                "format" => steps = FORMAT_STEPS,
                "uniqueItems" => steps = UNIQUE_STEPS,
                "enum" if is_looked_up(value) => {}
                "enum" | "const" | "required" | "dependentRequired" => steps = values(value),
                _ => {}
            }
            node.steps = node.steps.saturating_add(steps);
            node.looks_again |= keyword.starts_with("unevaluated");
        }
        Ok(node)
    }
}

/// What references can name beside JSON pointers.
#[derive(Default)]
struct Names<'a> {
    /// Subschemas by their anchors.
    anchors: HashMap<&'a str, Vec<&'a Value>>,
    /// Whether `id` means something, as in draft 4.
    is_draft_4: bool,
    /// Whether a subschema has an `id` or `$id` of its own, from which references in it are read.
    inner_ids: (bool, bool),
}

impl<'a> Names<'a> {
    fn of(root: &'a Value) -> Self {
        let mut names = Self::default();
        names.gather(root, true);
        names
    }

    /// It looks into values that are no subschemas too: what is there more than once is no name of any of them.
    fn gather(&mut self, value: &'a Value, is_root: bool) {
        if let Value::Object(fields) = value {
            for (name, text) in fields.iter().filter_map(|(name, field)| Some((name.as_str(), field.as_str()?))) {
                let anchor = match name {
                    "$anchor" | "$dynamicAnchor" => Some(text),
                    "id" | "$id" => text.strip_prefix('#'),
                    _ => None,
                };
                match (name, anchor) {
                    (_, Some(anchor)) => self.anchors.entry(anchor).or_default().push(value),
                    ("id", None) => self.inner_ids.0 |= !is_root,
                    ("$id", None) => self.inner_ids.1 |= !is_root,
                    ("$schema", None) => self.is_draft_4 |= text.contains("draft-04"),
                    _ => {}
                }
            }
        }
        let (list, fields) = (value.as_array(), value.as_object());
        let inner = list.into_iter().flatten().chain(fields.into_iter().flat_map(|fields| fields.values()));
        inner.for_each(|inner| self.gather(inner, false));
    }

    /// Where a reference leads, read as `jsonschema` reads it. What could be read in two ways is refused.
    fn target(&self, root: &'a Value, reference: &Value) -> Result<&'a Value, TooHeavy> {
        let has_inner_ids = self.inner_ids.1 || self.inner_ids.0 && self.is_draft_4;
        let reference = reference.as_str().filter(|_| !has_inner_ids).ok_or(TooHeavy::Reference)?;
        let (document, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let own = root.get("$id").or(root.get("id")).and_then(Value::as_str).map(|id| id.trim_end_matches('#'));
        let fragment = percent_decode_str(fragment).decode_utf8().map_err(|_| TooHeavy::Reference)?;
        let is_own = document.is_empty() || own == Some(document);
        let is_escaped = fragment.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        let found = match self.anchors.get(&*fragment).map(Vec::as_slice) {
            _ if !is_own || !is_escaped => None,
            _ if fragment.is_empty() || fragment.starts_with('/') => root.pointer(&fragment),
            Some([only]) => Some(*only),
            _ => None,
        };
        found.ok_or(TooHeavy::Reference)
    }
}

/// The subschemas in an order in which each comes after those that it applies to the same value.
fn in_order(nodes: &[Node]) -> Result<Vec<usize>, TooHeavy> {
    let mut appliers = vec![0_usize; nodes.len()];
    nodes.iter().flat_map(|node| &node.same).for_each(|(index, _)| appliers[*index] += 1);
    let mut order: Vec<usize> = (0..nodes.len()).filter(|index| appliers[*index] == 0).collect();
    let mut next = 0;
    while let Some(index) = order.get(next).copied() {
        next += 1;
        for (applied, _) in &nodes[index].same {
            appliers[*applied] -= 1;
            if appliers[*applied] == 0 {
                order.push(*applied);
            }
        }
    }
    order.reverse();
    if order.len() == nodes.len() { Ok(order) } else { Err(TooHeavy::Circle) }
}

/// What each subschema costs at one level below the value that it is applied to.
struct Level {
    /// Steps to decide whether a value matches.
    decide: Vec<u64>,
    /// Steps to tell the first fault.
    explain: Vec<u64>,
    /// Steps to find out what subschemas have looked at, beyond deciding.
    again: Vec<u64>,
    /// Subschemas within each other, down to this level.
    nesting: Vec<u64>,
}

impl Level {
    fn new(nodes: usize) -> Self {
        let zeros = || vec![0; nodes];
        Self { decide: zeros(), explain: zeros(), again: zeros(), nesting: zeros() }
    }
}

/// The most steps for one value at any level of the data.
fn most_steps(nodes: &[Node], order: &[usize]) -> Result<u64, TooHeavy> {
    let (mut most, mut below) = (0, Level::new(nodes.len()));
    for level in 0..MAX_LEVELS {
        let mut here = Level::new(nodes.len());
        for index in order.iter().copied() {
            let node = &nodes[index];
            let own = if level == 0 { node.steps } else { 0 };
            let mut decide = own.saturating_add(node.most_within(&below.decide));
            let mut explain = own.saturating_add(node.most_within(&below.explain));
            let mut again = own.saturating_add(node.most_within(&below.decide));
            let mut nesting = node.within().map(|index| below.nesting[index]).max().unwrap_or(0);
            for (applied, is_try) in node.same.iter().copied() {
                let tried = if is_try { here.decide[applied] } else { 0 };
                decide = decide.saturating_add(here.decide[applied]);
                explain = explain.saturating_add(here.explain[applied]).saturating_add(tried);
                again = again.saturating_add(here.decide[applied]).saturating_add(here.again[applied]);
                nesting = nesting.max(here.nesting[applied]);
            }
            if node.looks_again {
                decide = decide.saturating_add(again);
                explain = explain.saturating_add(again);
            }
            here.decide[index] = decide;
            here.explain[index] = explain;
            here.again[index] = again;
            here.nesting[index] = nesting + 1;
        }
        most = most.max(here.explain[0]);
        if most > MAX_STEPS {
            return Err(TooHeavy::Steps);
        }
        if here.nesting[0] > MAX_NESTING {
            return Err(TooHeavy::Nesting);
        }
        if here.explain[0] == 0 {
            break;
        }
        below = here;
    }
    Ok(most)
}

/// Whether members of an `enum` are looked up, whatever their number: strings and whole numbers.
fn is_looked_up(value: &Value) -> bool {
    let members = value.as_array().map(Vec::as_slice).unwrap_or_default();
    members.iter().all(|member| member.is_string() || member.is_null())
        || members.iter().all(|member| member.is_i64() || member.is_null())
}

/// A value and all values in it.
fn values(value: &Value) -> u64 {
    let within: u64 = match value {
        Value::Array(items) => items.iter().map(values).sum(),
        Value::Object(fields) => fields.values().map(values).sum(),
        _ => 0,
    };
    1 + within
}

fn pattern_steps(pattern: &str) -> u64 {
    let mut groups = pattern.match_indices("(?").map(|(at, _)| &pattern[at + 2..]);
    let mut escapes = pattern.match_indices('\\').map(|(at, _)| &pattern[at + 1..]);
    let backtracks = groups.any(|rest| !rest.starts_with(':'))
        || escapes.any(|rest| rest.starts_with(|next: char| next.is_ascii_digit() || next == 'k'));
    let steps = 1 + states(pattern) / STATES_PER_STEP;
    if backtracks { steps.saturating_add(BACKTRACKING_STEPS) } else { steps }
}

/// About how many states a pattern has as an automaton: counted repetitions repeat what they count.
fn states(pattern: &str) -> u64 {
    let (mut open, mut sum, mut last) = (Vec::new(), 0_u64, 0_u64);
    let mut rest = pattern.chars();
    let (one, of_property) = CLASS_STATES;
    while let Some(next) = rest.next() {
        last = match next {
            '(' => {
                open.push(std::mem::take(&mut sum));
                continue;
            }
            ')' => {
                let group = std::mem::replace(&mut sum, open.pop().unwrap_or(0));
                group.max(1)
            }
            '{' => {
                let is_count = |counts: &str| counts.chars().all(|next| next.is_ascii_digit() || next == ',');
                let counts = rest.as_str().split_once('}').filter(|(counts, _)| is_count(counts));
                let Some((counts, after)) = counts else { continue };
                // Without an upper bound the last repetition goes on for ever.
                let count = |text: &str| if text.is_empty() { 1 } else { text.parse().unwrap_or(u64::MAX) };
                let most = counts.split(',').map(count).max().unwrap_or(1);
                rest = after.chars();
                // One of them is in the sum.
                sum = sum.saturating_sub(last);
                last.saturating_mul(most.max(1))
            }
            '[' => {
                let mut class = one;
                while let Some(next) = rest.next().filter(|next| *next != ']') {
                    let is_property = next == '\\' && matches!(rest.next(), Some('p' | 'P'));
                    class = if is_property { of_property } else { class };
                }
                class
            }
            '\\' => match rest.next() {
                Some('p' | 'P') => of_property,
                _ => one,
            },
            '.' => one,
            _ => 1,
        };
        sum = sum.saturating_add(last);
    }
    open.into_iter().fold(sum, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Definitions of which each but the last is made of the next.
    fn chain(length: usize, of_next: impl Fn(Value) -> Value) -> Value {
        let mut definitions = json!({ "last": { "type": "object" } });
        for n in 0..length {
            let next = if n + 1 == length { "last".to_owned() } else { format!("n{}", n + 1) };
            definitions[format!("n{n}")] = of_next(json!({ "$ref": format!("#/$defs/{next}") }));
        }
        json!({ "$ref": "#/$defs/n0", "$defs": definitions })
    }

    #[test]
    fn each_subschema_counts_as_often_as_it_can_be_applied_to_one_value() {
        let four = json!({ "type": "string", "minLength": 1, "maxLength": 5 });
        for (schema, expected) in [
            (json!(true), 1),
            (json!({ "type": "object" }), 2),
            (json!({ "allOf": [four, four] }), 2 + 4 + 4),
            // Tries are made again to tell the faults.
            (json!({ "anyOf": [four, four] }), 2 + 2 * (4 + 4)),
            // A value has one name, and is at one place of a list.
            (json!({ "properties": { "a": four, "b": four } }), 4),
            (json!({ "prefixItems": [four, four], "items": four }), 4),
            // A name can match several patterns, and a value be looked for beside that.
            (json!({ "patternProperties": { "a": four, "b": four }, "additionalProperties": four }), 4 + 4 + 4),
            (json!({ "items": four, "contains": four }), 8),
            (json!({ "$ref": "#/$defs/a", "$defs": { "a": four } }), 3 + 4),
            // What is unevaluated is found by applying the others again.
            (
                json!({ "$ref": "#/$defs/a", "$defs": { "a": four }, "unevaluatedProperties": false }),
                4 + 4 + (4 + 4 + 4),
            ),
            (json!({ "enum": vec!["a"; 8_000] }), 2),
            (json!({ "enum": vec![json!({ "a": 1 }); 100] }), 1 + 1 + 2 * 100),
            (json!({ "uniqueItems": true }), 1 + UNIQUE_STEPS),
            (json!({ "pattern": "^[a-z]{1,64}$" }), 1 + 1 + (2 + 64 * 8) / STATES_PER_STEP),
            (json!({ "pattern": "^(?!test)" }), 1 + 1 + BACKTRACKING_STEPS),
        ] {
            assert_eq!(steps(&schema), Ok(expected), "{schema}");
        }
    }

    #[test]
    fn a_recursive_schema_that_goes_down_by_one_way_costs_the_same_at_each_level() {
        let tree = json!({
            "type": "object",
            "properties": { "left": { "$ref": "#" }, "right": { "$ref": "#" }, "list": { "items": { "$ref": "#" } } },
        });
        // The reference, and the whole schema.
        assert_eq!(steps(&tree), Ok(2 + 5));
        let named = json!({
            "$id": "https://example.com/tree", "$ref": "#node",
            "$defs": { "node": { "$anchor": "node", "items": { "$ref": "https://example.com/tree#node" } } },
        });
        assert!(steps(&named).is_ok(), "{:?}", steps(&named));
    }

    #[test]
    fn what_references_repeat_without_end_or_more_often_than_it_may_is_refused() {
        let twice = |next: Value| json!({ "allOf": [next, next] });
        assert!(steps(&chain(5, twice)).is_ok());
        let wide = vec![json!({ "a": 1 }); 8_000];
        let mut deep = chain(6, |next| next);
        deep["$defs"]["last"] = json!({ "items": { "$ref": "#" } });
        for (schema, expected) in [
            (chain(30, twice), TooHeavy::Steps),
            // Twice as often with each level of the data.
            (json!({ "additionalProperties": { "allOf": [{ "$ref": "#" }, { "$ref": "#" }] } }), TooHeavy::Steps),
            (json!({ "items": { "$ref": "#" }, "contains": { "$ref": "#" } }), TooHeavy::Steps),
            (chain(30, |next| json!({ "anyOf": [next], "unevaluatedProperties": false })), TooHeavy::Steps),
            (json!({ "enum": wide }), TooHeavy::Steps),
            (json!({ "pattern": "(([a-z]{1,100}){1,100}){1,100}" }), TooHeavy::Size),
            (json!({ "pattern": "(a[\\](]{1,1000}){1,1000}" }), TooHeavy::Size),
            (json!({ "properties": { "a": { "enum": vec![wide; 7] } } }), TooHeavy::Size),
            (json!({ "allOf": vec![true; MAX_SUBSCHEMAS] }), TooHeavy::Size),
            (chain(700, |next| next), TooHeavy::Nesting),
            (deep, TooHeavy::Nesting),
            (json!({ "$ref": "#" }), TooHeavy::Circle),
            (json!({ "anyOf": [{ "type": "string" }, { "not": { "$ref": "#" } }] }), TooHeavy::Circle),
            (json!({ "$ref": "https://example.com/s.json" }), TooHeavy::Reference),
            (json!({ "$ref": "#/$defs/~~1", "$defs": { "~/": true, "~~1": true } }), TooHeavy::Reference),
            (
                json!({ "$ref": "#a", "$defs": { "b": { "$anchor": "a" }, "c": { "$anchor": "a" } } }),
                TooHeavy::Reference,
            ),
            (json!({ "$ref": "#/$defs/a", "$defs": { "a": { "$id": "https://example.com/a" } } }), TooHeavy::Reference),
        ] {
            let shown: String = schema.to_string().chars().take(200).collect();
            assert_eq!(steps(&schema), Err(expected), "{shown}");
        }
    }

    #[test]
    fn members_named_id_in_examples_are_no_ids() {
        let schema = json!({
            "$ref": "#/$defs/a", "$defs": { "a": { "type": "object" } }, "examples": [{ "id": "a" }, { "id": "b" }],
        });
        assert!(steps(&schema).is_ok());
    }
}
