//! Tests of the description of the API.

use super::*;

#[tokio::test]
async fn paths_and_descriptions_match() {
    let bench = Bench::new(File::Good);
    let document = bench.get("/v1/openapi.json").await.json();
    let described: Vec<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, operations)| {
            operations.as_object().unwrap().keys().map(|method| (path.clone(), method.to_uppercase()))
        })
        .collect();
    let mut routed = Vec::new();
    for (path, methods) in api_routes().into_iter().chain(open_routes()) {
        let shown = path.replace("{*", "{");
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH"] {
            // Adding a method to a path that already takes it would panic.
            let filter = MethodFilter::try_from(Method::from_bytes(method.as_bytes()).unwrap()).unwrap();
            let methods = methods.clone();
            let add = std::panic::AssertUnwindSafe(move || methods.on(filter, || async {}));
            if std::panic::catch_unwind(add).is_err() {
                routed.push((shown.clone(), method.to_owned()));
            }
        }
    }
    let sorted = |mut list: Vec<(String, String)>| {
        list.sort();
        list
    };
    assert_eq!(sorted(described), sorted(routed), "the left are described, the right are in the router");
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            assert!(operation["summary"].is_string(), "{method} {path} has no summary");
            assert!(operation["responses"]["default"].is_object(), "{method} {path} has no errors");
        }
    }
    assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
    let page = include_str!("../../../../docs/api.md");
    for path in document["paths"].as_object().unwrap().keys() {
        assert!(page.contains(&format!("`{path}`")) || page.contains(&format!(" {path}`")), "docs/api.md lacks {path}");
    }
}

/// Returns what a program relies on of the document: operations with their parameters and bodies, and schemas with
/// their properties. Texts for people are left out.
fn served_names(document: &Value) -> String {
    let object = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut lines = Vec::new();
    for (path, methods) in object(&document["paths"]) {
        for (method, operation) in object(&methods) {
            let parameters = list(&operation["parameters"]).into_iter();
            let parameters = parameters.map(|parameter| {
                let must = if parameter["required"] == true { "!" } else { "" };
                format!("{}{must}", text(&parameter["name"]))
            });
            let responses = object(&operation["responses"]).into_iter().map(|(status, response)| {
                let bodies = object(&response["content"]).into_iter();
                let bodies: Vec<String> =
                    bodies.map(|(kind, body)| format!("{kind} {}", shape(&body["schema"]))).collect();
                format!("{status} {}", bodies.join(" "))
            });
            let (parameters, responses): (Vec<_>, Vec<_>) = (parameters.collect(), responses.collect());
            lines.push(format!("{method} {path} ({}) -> {}", parameters.join(", "), responses.join("; ")));
        }
    }
    for (name, schema) in object(&document["components"]["schemas"]) {
        lines.push(format!("{name} {}", shape(&schema)));
    }
    lines.sort();
    lines.join("\n") + "\n"
}

/// Returns a schema without the texts for people.
fn shape(schema: &Value) -> String {
    let mut schema = schema.clone();
    strip_texts(&mut schema);
    schema.to_string()
}

fn strip_texts(value: &mut Value) {
    match value {
        Value::Object(map) => {
            // A property may have the name of a keyword; then it has a schema, and no text.
            map.retain(|key, value| {
                !(["description", "summary", "title"].contains(&key.as_str()) && value.is_string())
            });
            map.sort_keys();
            map.values_mut().for_each(strip_texts);
        }
        Value::Array(list) => list.iter_mut().for_each(strip_texts),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn served_names_stay_as_they_are() {
    let bench = Bench::new(File::Good);
    let actual = served_names(&bench.get("/v1/openapi.json").await.json());
    let golden = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/admin/served_names.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &actual).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap_or_default();
    for (now, before) in actual.lines().zip(expected.lines()) {
        assert_eq!(now, before, "programs rely on these names (UPDATE_GOLDEN=1 rewrites the file)");
    }
    assert!(actual == expected, "the API has other operations or schemas (UPDATE_GOLDEN=1 rewrites the file)");
}
