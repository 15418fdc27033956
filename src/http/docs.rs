//! The reference of the routes for people, at `/docs`: one page made from the document, with nothing from elsewhere and
//! without scripts.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::{Map, Value};

const STYLE: &str = "
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
nav ul { columns: 18rem; padding-left: 1rem; }
h2 { margin-top: 3rem; border-bottom: 1px solid var(--line); }
article { border: 1px solid var(--line); border-radius: .5rem; padding: .25rem 1rem; margin: 1rem 0; }
h3 { margin: .5rem 0; }
code, pre { font: .875em/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
pre { overflow-x: auto; padding: .5rem; border: 1px solid var(--line); border-radius: .25rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .25rem .5rem .25rem 0; border-top: 1px solid var(--line); }
.method { text-transform: uppercase; font-weight: 700; }
small { opacity: .75; }
";

/// The page of a document.
pub(super) fn page(document: &Value) -> String {
    let title = text(&document["info"]["title"]);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) ": reference" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (title) " " small { (text(&document["info"]["version"])) } }
                p { (prose(text(&document["info"]["description"]))) }
                p { "For programs: " a href="openapi.json" { "openapi.json" } "." }
                (contents(document))
                @for tag in list(&document["tags"]) { (family(document, tag)) }
                (forms(document))
            }
        }
    };
    page.into_string()
}

/// A route with its method.
struct Operation<'a> {
    path: &'a str,
    method: &'a str,
    is: &'a Value,
}

impl Operation<'_> {
    fn id(&self) -> &str {
        text(&self.is["operationId"])
    }
}

/// The routes of a family, in their order.
fn of<'a>(document: &'a Value, tag: &'a Value) -> impl Iterator<Item = Operation<'a>> {
    let all = members(&document["paths"])
        .flat_map(|(path, item)| members(item).map(move |(method, is)| Operation { path, method, is }));
    all.filter(move |operation| list(&operation.is["tags"]).any(|name| name == &tag["name"]))
}

fn contents(document: &Value) -> Markup {
    html! {
        nav {
            @for tag in list(&document["tags"]) {
                h4 { (text(&tag["name"])) }
                ul {
                    @for operation in of(document, tag) {
                        li { a href={ "#" (operation.id()) } { (text(&operation.is["summary"])) } }
                    }
                }
            }
        }
    }
}

fn family(document: &Value, tag: &Value) -> Markup {
    html! {
        h2 { (text(&tag["name"])) }
        p { (prose(text(&tag["description"]))) }
        @for operation in of(document, tag) { (route(&operation)) }
    }
}

fn route(operation: &Operation<'_>) -> Markup {
    let body = &operation.is["requestBody"]["content"]["application/json"];
    html! {
        article id=(operation.id()) {
            h3 { (text(&operation.is["summary"])) }
            p { code { span.method { (operation.method) } " " (operation.path) } }
            p { (prose(text(&operation.is["description"]))) }
            @if operation.is["parameters"].is_array() {
                h4 { "Parameters" }
                table {
                    @for parameter in list(&operation.is["parameters"]) {
                        (row(text(&parameter["name"]), parameter, &parameter["schema"], parameter["required"] == true))
                    }
                }
            }
            @if !body.is_null() {
                h4 { "Body" }
                (form(&body["schema"]))
            }
            h4 { "Answers" }
            @for (status, answer) in members(&operation.is["responses"]) {
                @let shown = members(&answer["content"]).next();
                p {
                    code { (status) } " " (prose(text(&answer["description"])))
                    @if let Some((kind, _)) = shown { " " small { (kind) } }
                }
                @if let Some(example) = shown.and_then(|(_, content)| content.get("example")) { (json(example)) }
                @else if let Some((_, content)) = shown { (reference(&content["schema"])) }
            }
        }
    }
}

/// The forms that several routes name.
fn forms(document: &Value) -> Markup {
    html! {
        h2 { "Forms" }
        @for (name, schema) in members(&document["components"]["schemas"]) {
            article id=(name) {
                h3 { (name) }
                p { (prose(text(&schema["description"]))) }
                (form(schema))
            }
        }
    }
}

/// What a schema says, in a table where it has fields.
fn form(schema: &Value) -> Markup {
    html! {
        (reference(schema))
        @if schema["properties"].is_object() {
            table {
                @for (field, is) in members(&schema["properties"]) {
                    (row(field, is, is, list(&schema["required"]).any(|name| name == field)))
                }
            }
        }
        @if let Some(example) = schema.get("example") { (json(example)) }
    }
}

fn reference(schema: &Value) -> Markup {
    let name = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next());
    html! { @if let Some(name) = name { p { a href={ "#" (name) } { (name) } } } }
}

fn row(name: &str, described: &Value, schema: &Value, required: bool) -> Markup {
    html! {
        tr {
            th { code { (name) } @if required { " " small { "required" } } }
            td { small { (kind(schema)) } }
            td { (prose(text(&described["description"]))) @if schema["properties"].is_object() { (form(schema)) } }
        }
    }
}

/// What a value is, in a few words.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return name.to_owned();
    }
    let either = list(&schema["oneOf"]).chain(list(&schema["anyOf"]));
    let either: Vec<String> = either.map(kind).filter(|kind| !kind.is_empty()).collect();
    if !either.is_empty() && !schema["properties"].is_object() {
        return either.join(" or ");
    }
    let values: Vec<String> =
        list(&schema["enum"]).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect();
    if !values.is_empty() {
        return values.join(", ");
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect(),
        one => one.as_str().into_iter().collect(),
    };
    let types = types.join(" or ");
    match schema.get("items").map(kind) {
        Some(items) if types == "array" && !items.is_empty() => format!("list of {items}"),
        _ if types == "array" => "list".to_owned(),
        _ => types,
    }
}

fn json(example: &Value) -> Markup {
    html! { pre { (format!("{example:#}")) } }
}

/// Text in which code stands between backquotes.
fn prose(text: &str) -> Markup {
    html! {
        @for (n, part) in text.split('`').enumerate() {
            @if n % 2 == 0 { (part) } @else { code { (part) } }
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let map: Option<&Map<String, Value>> = value.as_object();
    map.into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_document_says_is_shown_and_nothing_of_it_is_markup() {
        let document = json!({
            "info": { "title": "<b>T</b>", "version": "1", "description": "Say `a < b`." },
            "tags": [{ "name": "All", "description": "" }],
            "paths": { "/x/{id}": { "post": {
                "operationId": "x", "tags": ["All"], "summary": "Does <i>x</i>",
                "parameters": [{ "name": "id", "in": "path", "required": true, "schema": { "type": "string" } }],
                "requestBody": { "content": { "application/json": { "schema": { "$ref": "#/components/schemas/X" } } } },
                "responses": { "200": { "description": "Done", "content": { "application/json": { "example": { "a": "</pre>" } } } } },
            } } },
            "components": { "schemas": { "X": {
                "type": "object", "required": ["n"],
                "properties": { "n": { "type": ["integer", "null"] }, "of": { "type": "array", "items": { "enum": ["a", "b"] } } },
            } } },
        });
        let page = page(&document);
        for expected in [
            "&lt;b&gt;T&lt;/b&gt;",
            "<code>a &lt; b</code>",
            "Does &lt;i&gt;x&lt;/i&gt;",
            r##"<a href="#X">X</a>"##,
            r#"<article id="X">"#,
            "integer",
            "list of a, b",
            "&lt;/pre&gt;",
            "required",
        ] {
            assert!(page.contains(expected), "{expected} is not in {page}");
        }
        assert!(!page.contains("<script") && !page.contains("://"), "{page}");
    }
}
