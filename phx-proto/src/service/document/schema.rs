//! The JSON Schema of a document, derived from the structs that the reader uses.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::Connections;
use super::connection::Connection;
use super::values::{Channels, Pairs, Vsn};
use crate::config::Options;

impl Connections {
    /// The JSON Schema (draft 2020-12) of a document, for editors and for programs that write
    /// documents.
    ///
    /// A document that matches the schema may still have problems that a schema cannot express: an
    /// invalid address, a variable that is not set, a range that ends before it begins, a topic
    /// that occurs twice.
    ///
    /// ```
    /// let schema = phx_proto::service::Connections::json_schema();
    /// let connection = &schema["$defs"]["connection"];
    /// assert_eq!(connection["required"][0], "uri");
    /// assert_eq!(connection["properties"]["push_timeout_msec"]["default"], 10_000);
    /// ```
    #[must_use]
    pub fn json_schema() -> Value {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.inline_subschemas = true;
        });
        let mut generator = settings.into_generator();
        let mut properties = Map::new();
        for mut schema in
            [Connection::json_schema(&mut generator), Options::json_schema(&mut generator)]
        {
            let Some(Value::Object(keys)) = schema.remove("properties") else { continue };
            for (key, schema) in keys {
                let schema = property(&key, schema);
                properties.insert(key, schema);
            }
        }
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Named connections of phx",
            "type": "object",
            "properties": {
                "$schema": {"type": "string"},
                "connections": {
                    "description": "The connections by name.",
                    "type": "object",
                    "propertyNames": {"minLength": 1},
                    "additionalProperties": {"$ref": "#/$defs/connection"},
                },
            },
            "required": ["connections"],
            "additionalProperties": false,
            "$defs": {
                "connection": {
                    "type": "object",
                    "properties": properties,
                    "required": ["uri"],
                    "additionalProperties": false,
                },
            },
        })
    }
}

/// The schema of a key. If the key has a default, `null` is allowed and means the default.
fn property(key: &str, mut schema: Value) -> Value {
    let mut take = |name| schema.as_object_mut().and_then(|schema| schema.remove(name));
    let (description, default) = (take("description"), take("default"));
    if let Ok(schema) = <&mut Schema>::try_from(&mut schema) {
        RecursiveTransform(plain).transform(schema);
    }
    if key != "uri" {
        schema = json!({"anyOf": [schema, {"type": "null"}]});
        // A default of null is left out, because `null` itself means the default.
        if let Some(default) = default.filter(|default| !default.is_null()) {
            schema["default"] = default;
        }
    }
    if let Some(description) = description {
        schema["description"] = description;
    }
    schema
}

/// Simplifies a schema: ranges replace non-standard formats, a list of strings replaces one schema
/// for each string, and descriptions with links to Rust items are removed.
fn plain(schema: &mut Schema) {
    let links = |about: &Value| about.as_str().is_some_and(|about| about.contains("[`"));
    if schema.get("description").is_some_and(links) {
        schema.remove("description");
    }
    schema.remove("default");
    let strings = schema.get("oneOf").and_then(Value::as_array).and_then(|variants| {
        variants.iter().map(|variant| variant.get("const").cloned()).collect::<Option<Value>>()
    });
    if let Some(strings) = strings {
        schema.remove("oneOf");
        schema.insert("enum".to_owned(), strings);
    }
    let maximum = match schema.remove("format").as_ref().and_then(Value::as_str) {
        Some("uint32") => u32::MAX.into(),
        Some("uint64" | "uint") => u64::MAX,
        _ => return,
    };
    schema.insert("maximum".to_owned(), maximum.into());
}

/// Also allows a string with a variable.
pub(super) fn or_reference(schema: &mut Schema) {
    let mut named = core::mem::take(schema);
    let description = named.remove("description");
    *schema = json_schema!({"anyOf": [named, {"type": "string", "pattern": r"\$\{"}]});
    if let Some(description) = description {
        schema.insert("description".to_owned(), description);
    }
}

/// The schema of [`Pairs`] whose names are CloudEvents extension attributes.
pub(super) fn attributes(_: &mut SchemaGenerator) -> Schema {
    pairs(&json!({
        "pattern": "^[a-z0-9]{1,20}$",
        "not": {"enum": crate::service::router::TAKEN_ATTRIBUTES},
    }))
}

/// The schema of an object or a list of pairs, whose names match `name`.
fn pairs(name: &Value) -> Schema {
    let value = json!({"type": ["string", "number", "boolean"]});
    let mut text = name.clone();
    text["type"] = "string".into();
    json_schema!({"anyOf": [
        {"type": "object", "propertyNames": name, "additionalProperties": value},
        {"type": "array", "items": {
            "type": "array", "prefixItems": [text, value], "minItems": 2, "maxItems": 2,
        }},
    ]})
}

macro_rules! schema {
    ($type:ty => $schema:expr) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

schema!(Pairs => pairs(&json!({"type": "string"})));
schema!(Vsn => {
    let mut schema = json_schema!({"enum": Vsn::all()});
    or_reference(&mut schema);
    schema
});
schema!(Channels => {
    let topic = json!({"type": "string", "not": {"const": "phoenix"}});
    json_schema!({"anyOf": [
        {"type": "object", "propertyNames": topic},
        {"type": "array", "items": {"anyOf": [topic, {
            "type": "array", "prefixItems": [topic, true], "minItems": 2, "maxItems": 2,
        }]}},
    ]})
});
