//! Request bodies as lists of fields. From one list come the parser, the schema of the reference, the codes that the
//! reference lists, the names in `no_valid_fields`, and the limits that the dashboard's forms show.
//!
//! A [`Field`] is an attribute: what it holds and how a value of it is read. A [`Slot`] is its place in one body:
//! whether the body must name it, and what its absence means. `body!` makes a structure of slots.

use serde_json::{Map, Value, json};

use super::error::{ApiError, Code, Fault};

/// What a field holds: the JSON Schema of the reference, and the limits of a form.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// A string.
    Text(Text),
    /// One of these strings.
    OneOf(fn() -> Vec<&'static str>),
    /// A whole number from the first to the second.
    Number(u64, u64),
    /// A list.
    List(List),
    /// Another body, by the name of its component.
    Body(&'static str),
    /// An object of keys that the client chooses, each with a string.
    Strings(Strings),
    /// A JSON object.
    Object,
    /// A JSON Schema.
    JsonSchema,
    /// What this schema says, which has one type.
    Written(fn() -> Value),
}

/// The limits of a string. Lengths are in characters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Text {
    /// The `format` of the reference.
    pub format: Option<&'static str>,
    /// A regular expression.
    pub pattern: Option<&'static str>,
    /// The least length.
    pub min: Option<usize>,
    /// The greatest length.
    pub max: Option<usize>,
}

impl Text {
    /// Any string.
    pub const ANY: Self = Self { format: None, pattern: None, min: None, max: None };
}

/// The limits of a list.
#[derive(Clone, Copy, Debug)]
pub struct List {
    /// What is in it.
    pub items: &'static Shape,
    /// The least length.
    pub min: Option<usize>,
    /// The greatest length.
    pub max: Option<usize>,
}

/// The limits of keys and their strings.
#[derive(Clone, Copy, Debug)]
pub struct Strings {
    /// How many keys there can be.
    pub max: usize,
    /// A key.
    pub key: Text,
    /// The string of a key.
    pub value: Text,
}

impl Shape {
    fn max_chars(&self) -> Option<usize> {
        match self {
            Self::Text(text) => text.max,
            _ => None,
        }
    }

    fn schema(&self, nullable: bool) -> Value {
        let types = |names: &[&str]| match (names, nullable) {
            ([name], false) => json!(name),
            _ => json!(names.iter().copied().chain(nullable.then_some("null")).collect::<Vec<_>>()),
        };
        let mut schema = Map::new();
        let mut set = |name: &str, value: Value| {
            if !value.is_null() {
                schema.insert(name.to_owned(), value);
            }
        };
        match self {
            Self::Text(text) => {
                set("type", types(&["string"]));
                set("format", json!(text.format));
                set("pattern", json!(text.pattern));
                set("minLength", json!(text.min));
                set("maxLength", json!(text.max));
            }
            Self::OneOf(names) => {
                set("type", types(&["string"]));
                let null = nullable.then_some(Value::Null);
                set("enum", names().into_iter().map(Value::from).chain(null).collect());
            }
            Self::Number(min, max) => {
                set("type", types(&["integer"]));
                set("minimum", json!(min));
                set("maximum", json!(max));
            }
            Self::List(list) => {
                set("type", types(&["array"]));
                set("items", list.items.schema(false));
                set("minItems", json!(list.min));
                set("maxItems", json!(list.max));
            }
            Self::Strings(strings) => {
                set("type", types(&["object"]));
                set("maxProperties", json!(strings.max));
                set("propertyNames", Self::Text(strings.key).schema(false));
                set("additionalProperties", Self::Text(strings.value).schema(false));
            }
            Self::Body(name) => set("$ref", format!("#/components/schemas/{name}").into()),
            Self::Object => set("type", types(&["object"])),
            Self::JsonSchema => set("type", types(&["object", "boolean"])),
            Self::Written(written) => {
                let written = written();
                set("type", types(&[written["type"].as_str().expect("one type")]));
                let rest = written.as_object().into_iter().flatten().filter(|(name, _)| *name != "type");
                rest.for_each(|(name, value)| set(name, value.clone()));
            }
        }
        schema.into()
    }
}

/// An attribute that a client can write. `C` is what its reading needs to know.
pub struct Field<C, T> {
    /// What the reference says of it.
    pub about: &'static str,
    /// What it holds.
    pub shape: Shape,
    /// Whether `null` is a value.
    pub nullable: bool,
    /// The codes of [`Field::read`], and those that later checks of the value answer.
    pub codes: &'static [Code],
    /// Reads a value. The faults name no field: whoever knows its place in the body adds it.
    pub read: fn(&C, &Value) -> Result<T, Vec<Fault>>,
}

impl<C, T> Field<C, T> {
    /// In a body that must name it: its absence, and `null`, is this fault.
    pub const fn required(self, missing: Code) -> Required<C, T> {
        Required { field: self, missing }
    }

    /// In a body that need not name it: its absence is the type's default.
    pub const fn or_default(self) -> OrDefault<C, T> {
        OrDefault { field: self, default: None }
    }

    /// In a body that need not name it: its absence, and `null`, is nothing.
    pub const fn maybe(self) -> Maybe<C, T> {
        Maybe { field: self, default: None }
    }

    /// In a body that changes what it names.
    pub const fn change(self) -> Change<C, T> {
        Change { field: self }
    }

    /// The same with other words in the reference.
    #[must_use]
    pub const fn about(self, about: &'static str) -> Self {
        let Self { shape, nullable, codes, read, .. } = self;
        Self { about, shape, nullable, codes, read }
    }

    fn property(&self, name: &'static str) -> Property {
        let mut schema = self.shape.schema(self.nullable);
        schema["description"] = self.about.into();
        Property { name, schema, max_chars: self.shape.max_chars(), is_required: false, codes: self.codes.to_vec() }
    }
}

/// A field's place in a body.
pub trait Slot<C> {
    /// What is read from it.
    type Value;

    /// What the reference says of it.
    fn property(&self, name: &'static str) -> Property;

    /// Reads the body's value of it, or its absence.
    fn read(&self, context: &C, value: Option<&Value>) -> Result<Self::Value, Vec<Fault>>;
}

/// See [`Field::required`].
pub struct Required<C, T> {
    field: Field<C, T>,
    missing: Code,
}

impl<C, T> Slot<C> for Required<C, T> {
    type Value = T;

    fn property(&self, name: &'static str) -> Property {
        let mut property = self.field.property(name);
        property.is_required = true;
        property.codes.push(self.missing);
        property
    }

    fn read(&self, context: &C, value: Option<&Value>) -> Result<T, Vec<Fault>> {
        match value {
            None | Some(Value::Null) => Err(vec![Fault::new(self.missing)]),
            Some(value) => (self.field.read)(context, value),
        }
    }
}

/// See [`Field::or_default`].
pub struct OrDefault<C, T> {
    field: Field<C, T>,
    default: Option<fn() -> Value>,
}

impl<C, T> OrDefault<C, T> {
    /// The same with the default in the reference.
    #[must_use]
    pub const fn shown(self, default: fn() -> Value) -> Self {
        Self { field: self.field, default: Some(default) }
    }
}

impl<C, T: Default> Slot<C> for OrDefault<C, T> {
    type Value = T;

    fn property(&self, name: &'static str) -> Property {
        self.field.property(name).with_default(self.default)
    }

    fn read(&self, context: &C, value: Option<&Value>) -> Result<T, Vec<Fault>> {
        value.map_or_else(|| Ok(T::default()), |value| (self.field.read)(context, value))
    }
}

/// See [`Field::maybe`].
pub struct Maybe<C, T> {
    field: Field<C, T>,
    default: Option<fn() -> Value>,
}

impl<C, T> Maybe<C, T> {
    /// The same with what stands for nothing in the reference.
    #[must_use]
    pub const fn shown(self, default: fn() -> Value) -> Self {
        Self { field: self.field, default: Some(default) }
    }
}

impl<C, T> Slot<C> for Maybe<C, T> {
    type Value = Option<T>;

    fn property(&self, name: &'static str) -> Property {
        let Field { about, shape, codes, read, .. } = self.field;
        Field { about, shape, nullable: true, codes, read }.property(name).with_default(self.default)
    }

    fn read(&self, context: &C, value: Option<&Value>) -> Result<Option<T>, Vec<Fault>> {
        let value = value.filter(|value| !value.is_null());
        value.map(|value| (self.field.read)(context, value)).transpose()
    }
}

/// See [`Field::change`].
pub struct Change<C, T> {
    field: Field<C, T>,
}

impl<C, T> Slot<C> for Change<C, T> {
    type Value = Option<T>;

    fn property(&self, name: &'static str) -> Property {
        self.field.property(name)
    }

    fn read(&self, context: &C, value: Option<&Value>) -> Result<Option<T>, Vec<Fault>> {
        value.map(|value| (self.field.read)(context, value)).transpose()
    }
}

/// A field as the reference lists it.
pub struct Property {
    /// Its name in the body.
    pub name: &'static str,
    /// Its JSON Schema with its description.
    pub schema: Value,
    /// The most characters of a string; `None` where there is no such limit.
    pub max_chars: Option<usize>,
    /// Whether the body must name it.
    pub is_required: bool,
    /// The codes of its faults.
    pub codes: Vec<Code>,
}

impl Property {
    /// A field that its handler reads itself: one that the body must name, or one that may be `null`.
    pub fn new(name: &'static str, about: &str, shape: Shape, is_required: bool, codes: &[Code]) -> Self {
        let mut schema = shape.schema(!is_required);
        schema["description"] = about.into();
        Self { name, schema, max_chars: shape.max_chars(), is_required, codes: codes.to_vec() }
    }

    fn with_default(mut self, default: Option<fn() -> Value>) -> Self {
        if let Some(default) = default {
            self.schema["default"] = default();
        }
        self
    }
}

/// A body as the reference shows it.
pub struct BodySchema {
    /// The name of its component.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Its fields, in order.
    pub properties: Vec<Property>,
}

impl BodySchema {
    /// The component.
    pub fn component(&self) -> Value {
        let required: Vec<_> = self.properties.iter().filter(|p| p.is_required).map(|p| p.name).collect();
        let properties: Map<String, Value> =
            self.properties.iter().map(|p| (p.name.to_owned(), p.schema.clone())).collect();
        let mut component = json!({ "type": "object", "description": self.about, "properties": properties });
        if !required.is_empty() {
            component["required"] = required.into();
        }
        component
    }

    /// The names of its fields, as `no_valid_fields` lists them.
    pub fn names(&self) -> String {
        self.properties.iter().map(|property| property.name).collect::<Vec<_>>().join(", ")
    }
}

/// A body that `body!` has made.
pub trait RequestBody: Sized {
    /// What the reading of its fields needs to know.
    type Context;

    /// The names of its fields, in order.
    const NAMES: &'static [&'static str];

    /// What the reference shows.
    fn schema() -> BodySchema;

    /// The most characters of a field, as a form shows it; `None` where there is no such limit.
    fn max_chars(name: &str) -> Option<usize> {
        let field = Self::schema().properties.into_iter().find(|property| property.name == name);
        field.expect("a form has fields of its body").max_chars
    }

    /// Reads it. All faults are in one answer, in the order of the fields. Other fields are ignored.
    fn read(body: &Map<String, Value>, context: &Self::Context) -> Result<Self, ApiError>;

    /// The same for a body that changes something: one that names no field is refused.
    fn read_change(body: &Map<String, Value>, context: &Self::Context) -> Result<Self, ApiError> {
        if Self::NAMES.iter().any(|name| body.contains_key(*name)) {
            return Self::read(body, context);
        }
        Err(Fault::new(Code::NoValidFields).naming(Self::schema().names()).into())
    }
}

/// Reads one field of a body, or its absence. Faults go to the others, with the field's name.
pub fn take<C, S: Slot<C>>(
    slot: &S,
    name: &str,
    context: &C,
    value: Option<&Value>,
    faults: &mut Vec<Fault>,
) -> Option<S::Value> {
    match slot.read(context, value) {
        Ok(value) => Some(value),
        Err(found) => {
            debug_assert!(!found.is_empty(), "a refusal has a fault");
            faults.extend(found.into_iter().map(|fault| fault.in_field(name)));
            None
        }
    }
}

/// A request body: its name and context, and each field with its type and its slot, in order. The documentation of the
/// structure is what the reference says of the body.
macro_rules! body {
    (
        $(#[doc = $about:literal])+
        $visibility:vis struct $body:ident($context:ty) {
            $($field:ident: $type:ty = $slot:expr),+ $(,)?
        }
    ) => {
        $(#[doc = $about])+
        $visibility struct $body {
            $($visibility $field: $type),+
        }

        impl $crate::api::fields::RequestBody for $body {
            type Context = $context;

            const NAMES: &'static [&'static str] = &[$(stringify!($field)),+];

            fn schema() -> $crate::api::fields::BodySchema {
                $crate::api::fields::BodySchema {
                    name: stringify!($body),
                    about: concat!($($about),+).trim_start(),
                    properties: vec![$($crate::api::fields::Slot::property(&$slot, stringify!($field))),+],
                }
            }

            fn read(
                body: &serde_json::Map<String, serde_json::Value>,
                context: &$context,
            ) -> Result<Self, $crate::api::error::ApiError> {
                let mut faults = Vec::new();
                $(
                    let value = body.get(stringify!($field));
                    let $field = $crate::api::fields::take(&$slot, stringify!($field), context, value, &mut faults);
                )+
                $crate::api::error::ApiError::check(faults)?;
                Ok(Self { $($field: $field.expect("a field without a fault has a value")),+ })
            }
        }
    };
}

pub(super) use body;

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: Field<usize, String> = Field {
        about: "A name.",
        shape: Shape::Text(Text { max: Some(5), ..Text::ANY }),
        nullable: false,
        codes: &[Code::NameInvalid],
        read: |most, value| {
            let name = value.as_str().filter(|name| name.len() <= *most);
            name.map(str::to_owned).ok_or_else(|| vec![Fault::new(Code::NameInvalid)])
        },
    };

    const NUMBER: Field<usize, u64> = Field {
        about: "A number.",
        shape: Shape::Number(1, 9),
        nullable: false,
        codes: &[Code::OverlapInvalid],
        read: |_, value| value.as_u64().ok_or_else(|| vec![Fault::new(Code::OverlapInvalid)]),
    };

    body! {
        /// What a test sends.
        struct Sent(usize) {
            number: u64 = NUMBER.or_default().shown(|| 0.into()),
            name: String = NAME.required(Code::NameRequired),
            other: Option<String> = NAME.about("Another name.").maybe(),
            changed: Option<u64> = NUMBER.change(),
        }
    }

    fn read(body: Value) -> Result<Sent, Vec<String>> {
        let body = body.as_object().expect("an object").clone();
        let told = |error: ApiError| {
            let errors: Value = serde_json::from_str(&error.errors(crate::api::Language::English)).expect("JSON");
            let told = |error: &Value| {
                let pointer = error["source"]["pointer"].as_str().unwrap_or("");
                format!("{} {pointer}", error["code"].as_str().unwrap_or(""))
            };
            errors.as_array().expect("a list").iter().map(told).collect()
        };
        Sent::read_change(&body, &5).map_err(told)
    }

    #[test]
    fn fields_are_read_by_their_slots() {
        let sent = read(json!({ "name": "a", "other": null, "unknown": 1 })).expect("readable");
        assert_eq!((sent.number, sent.name.as_str(), sent.other, sent.changed), (0, "a", None, None));
        let sent = read(json!({ "name": "a", "other": "b", "changed": 7, "number": 3 })).expect("readable");
        assert_eq!((sent.number, sent.other.as_deref(), sent.changed), (3, Some("b"), Some(7)));
    }

    #[test]
    fn all_faults_are_told_in_the_order_of_the_fields() {
        let faults = read(json!({ "changed": null, "other": 1, "name": null, "number": "x" })).err();
        let expected = [
            "webhook_overlap_invalid /data/attributes/number",
            "name_required /data/attributes/name",
            "name_invalid /data/attributes/other",
            "webhook_overlap_invalid /data/attributes/changed",
        ];
        assert_eq!(faults, Some(expected.map(str::to_owned).to_vec()));
        assert_eq!(read(json!({ "unknown": 1 })).err(), Some(vec!["no_valid_fields ".to_owned()]));
    }

    #[test]
    fn the_schema_says_what_is_read() {
        let expected = json!({
            "type": "object",
            "description": "What a test sends.",
            "required": ["name"],
            "properties": {
                "number": { "type": "integer", "minimum": 1, "maximum": 9, "description": "A number.", "default": 0 },
                "name": { "type": "string", "maxLength": 5, "description": "A name." },
                "other": { "type": ["string", "null"], "maxLength": 5, "description": "Another name." },
                "changed": { "type": "integer", "minimum": 1, "maximum": 9, "description": "A number." },
            },
        });
        assert_eq!(Sent::schema().component(), expected);
        assert_eq!(Sent::schema().names(), "number, name, other, changed");
    }
}
