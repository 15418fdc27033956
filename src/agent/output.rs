//! Answers of a form that was asked for: JSON that fits a JSON Schema.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::model::{Finish, Reply};
use crate::failure::Failure;

/// How often a model is asked for an answer of the right form at the most, unless somebody says otherwise.
pub const ANSWERS_MAX: u32 = 3;

/// The longest account of what is wrong with an answer, in problems.
const PROBLEMS_MAX: usize = 5;

/// The form of the answer.
///
/// The turn's last answer is read as JSON and checked. If it does not fit, the model is told what is wrong and asked again;
/// after [`answers_max`](Self::answers_max) answers the turn fails. What was said stays in the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StructuredOutput {
    /// Its JSON Schema.
    pub schema: Value,
    /// How many answers of another form are one too many; 3 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers_max: Option<u32>,
}

/// What an answer is, where one of a form was asked for. Recorded with the step that asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Formed {
    /// It fits.
    Object(Value),
    /// It does not.
    Misfit {
        /// What is wrong, in words for the model.
        problem: String,
        /// How many answers the turn may have.
        answers_max: u32,
    },
}

impl StructuredOutput {
    /// Answers that can be read as `T`.
    #[must_use]
    pub fn of<T: JsonSchema>() -> Self {
        Self::schema(schemars::schema_for!(T).to_value())
    }

    /// Answers that fit a JSON Schema.
    #[must_use]
    pub fn schema(schema: Value) -> Self {
        Self { schema, answers_max: None }
    }

    /// With another bound of answers; at least one.
    #[must_use]
    pub fn answers_max(self, answers: u32) -> Self {
        Self { answers_max: Some(answers.max(1)), ..self }
    }

    /// Whether the schema is one. Nothing is fetched for it: a schema that names another by an address is refused.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        self.checks().map(drop)
    }

    fn checks(&self) -> Result<jsonschema::Validator, String> {
        jsonschema::options().offline().build(&self.schema).map_err(|problem| {
            let at = problem.instance_path().to_string();
            let at = if at.is_empty() { String::new() } else { format!(" at {at}") };
            format!("structuredOutput.schema is no JSON Schema{at}: {problem}")
        })
    }

    /// What an answer is.
    ///
    /// # Errors
    /// If the schema is none: no answer would fit.
    pub(super) fn formed(&self, reply: &Reply) -> Result<Formed, Failure> {
        let unusable = |problem| Failure::new(problem).code("output_schema_invalid").not_retryable();
        let checks = self.checks().map_err(unusable)?;
        Ok(match object_of(reply, &checks) {
            Ok(object) => Formed::Object(object),
            Err(problem) => Formed::Misfit { problem, answers_max: self.answers_max.unwrap_or(ANSWERS_MAX).max(1) },
        })
    }
}

fn object_of(reply: &Reply, checks: &jsonschema::Validator) -> Result<Value, String> {
    let text = reply.text();
    let object: Value = serde_json::from_str(unfenced(&text)).map_err(|e| match reply.finish {
        Finish::Length => format!("the answer was cut at its longest and is not whole ({e})"),
        _ => format!("it is not JSON: {e}"),
    })?;
    problems(checks, &object, PROBLEMS_MAX).map_or(Ok(object), Err)
}

/// What is wrong with a value, place by place; none if it fits.
pub(super) fn problems(checks: &jsonschema::Validator, value: &Value, at_most: usize) -> Option<String> {
    let problems = checks.iter_errors(value).take(at_most).map(|problem| match problem.instance_path().to_string() {
        at if at.is_empty() => problem.to_string(),
        at => format!("{at}: {problem}"),
    });
    let problems: Vec<String> = problems.collect();
    (!problems.is_empty()).then(|| problems.join("; "))
}

/// The text without the fence that models like to put around JSON.
fn unfenced(text: &str) -> &str {
    let text = text.trim();
    let inner = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    inner.map_or(text, |inner| inner.strip_prefix("json").unwrap_or(inner).trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_no_part_of_an_answer() {
        assert_eq!(unfenced("```json\n{\"a\":1}\n```"), "{\"a\":1}");
        assert_eq!(unfenced(" ```\n[1]``` "), "[1]");
        assert_eq!(unfenced("\"```\""), "\"```\"");
    }

    #[test]
    fn what_is_no_schema_is_told_so() {
        let refused = StructuredOutput::schema(serde_json::json!({ "type": "objekt" })).check().unwrap_err();
        assert!(refused.starts_with("structuredOutput.schema is no JSON Schema at /type: "), "{refused}");
        let elsewhere = serde_json::json!({ "$ref": "https://example.com/schema.json" });
        assert!(StructuredOutput::schema(elsewhere).check().is_err());
    }
}
