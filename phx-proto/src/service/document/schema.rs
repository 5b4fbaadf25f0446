//! The JSON Schema of a document, made of the table of keys that the reader goes by.

use serde_json::{Map, Value, json};

use super::Connections;
use super::keys::{CONNECTION, Shape, TLS};

impl Connections {
    /// The JSON Schema (draft 2020-12) of a document, for editors and for whoever generates
    /// documents.
    ///
    /// What it accepts can still be refused for what a schema cannot say: an address that is none,
    /// a variable that is not set, a range that ends before it begins, a topic that is there twice.
    ///
    /// ```
    /// let schema = phx_proto::Connections::json_schema();
    /// assert_eq!(schema["$defs"]["connection"]["required"][0], "uri");
    /// ```
    #[must_use]
    pub fn json_schema() -> Value {
        let mut properties = Map::new();
        for (key, shape, about) in CONNECTION {
            let mut schema = of(*shape);
            // There is no default for where to connect to.
            if *key != "uri" {
                schema = json!({"anyOf": [schema, {"type": "null"}]});
            }
            schema["description"] = (*about).into();
            properties.insert((*key).to_owned(), schema);
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
                "whole": whole(u64::MAX),
                "value": {"type": ["string", "number", "boolean"]},
            },
        })
    }
}

fn of(shape: Shape) -> Value {
    match shape {
        Shape::Flag => json!({"type": "boolean"}),
        Shape::Text => json!({"type": "string"}),
        Shape::OneOf(values) => json!({"anyOf": [
            {"enum": values},
            {"type": "string", "pattern": r"\$\{"},
        ]}),
        Shape::Msec | Shape::Count => json!({"$ref": "#/$defs/whole"}),
        Shape::Positive => {
            let mut schema = whole(u64::MAX);
            schema["minimum"] = 1.into();
            schema
        }
        Shape::Small => whole(u32::MAX.into()),
        Shape::Steps => {
            json!({"type": "array", "items": {"$ref": "#/$defs/whole"}, "minItems": 1})
        }
        Shape::Range => json!({
            "type": "array", "items": {"$ref": "#/$defs/whole"}, "minItems": 2, "maxItems": 2,
        }),
        Shape::Pairs => pairs(&json!({"type": "string"})),
        Shape::Attributes => pairs(&json!({
            "pattern": "^[a-z0-9]{1,20}$",
            "not": {"enum": crate::service::router::TAKEN_ATTRIBUTES},
        })),
        Shape::Channels => {
            let topic = json!({"type": "string", "not": {"const": "phoenix"}});
            json!({"anyOf": [
                {"type": "object", "propertyNames": topic},
                {"type": "array", "items": {"anyOf": [topic, {
                    "type": "array", "prefixItems": [topic, true], "minItems": 2, "maxItems": 2,
                }]}},
            ]})
        }
        Shape::Tls => {
            let text = |(key, about): &(&str, &str)| {
                ((*key).to_owned(), json!({"type": "string", "description": about}))
            };
            json!({
                "type": "object",
                "properties": TLS.iter().map(text).collect::<Map<_, _>>(),
                "additionalProperties": false,
                "dependentRequired": {"cert_file": ["key_file"], "key_file": ["cert_file"]},
            })
        }
    }
}

fn whole(most: u64) -> Value {
    json!({"type": "integer", "minimum": 0, "maximum": most})
}

/// An object, or a list of pairs, with names like this.
fn pairs(name: &Value) -> Value {
    let value = json!({"$ref": "#/$defs/value"});
    let mut text = name.clone();
    text["type"] = "string".into();
    json!({"anyOf": [
        {"type": "object", "propertyNames": name, "additionalProperties": value},
        {"type": "array", "items": {
            "type": "array", "prefixItems": [text, value], "minItems": 2, "maxItems": 2,
        }},
    ]})
}
