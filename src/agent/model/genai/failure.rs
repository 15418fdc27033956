//! What went wrong, told so that the caller knows what to do, and without secrets.

use std::error::Error as _;
use std::time::Duration;

use genai::Error;
use genai::webc::StreamTimeout;
use reqwest::header::HeaderMap;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::Timeouts;
use crate::agent::model::{ModelError, TimeLimit, beginning};

/// The longest wait that is taken from a provider's word.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
const CAUSE_CHARS_MAX: usize = 600;

/// Tells errors of one call.
pub(super) struct Teller<'a> {
    pub(super) model: String,
    pub(super) key: Option<&'a SecretString>,
    pub(super) timeouts: Timeouts,
}

impl Teller<'_> {
    pub(super) fn cut(&self, cause: &str) -> ModelError {
        ModelError::Cut { model: self.model.clone(), cause: self.clean(cause) }
    }

    fn unfit(&self, cause: &str) -> ModelError {
        ModelError::Unfit { model: self.model.clone(), cause: self.clean(cause) }
    }

    pub(super) fn tell(&self, error: Error) -> ModelError {
        match error {
            Error::WebStream { error, .. } => self.tell_inner(error),
            Error::HttpError { status, body, headers, .. } => self.answered(status.as_u16(), &body, &headers),
            Error::ChatResponse { body, .. } => self.broke_off(&body),
            Error::StreamParse { serde_error, .. } => self.cut(&format!("a piece of it is not JSON, {serde_error}")),
            Error::JsonValueExt(problem) => self.cut(&format!("a piece of it is not as expected, {problem}")),
            Error::SerdeJson(problem) => self.cut(&format!("a piece of it is not as expected, {problem}")),
            other => match (other.status(), other.headers()) {
                (Some(status), Some(headers)) => self.answered(status.as_u16(), &other.to_string(), headers),
                _ => self.unfit(&other.to_string()),
            },
        }
    }

    /// The error inside a stream's error, which alone knows what happened.
    fn tell_inner(&self, error: genai::BoxError) -> ModelError {
        let error = match error.downcast::<Error>() {
            Ok(error) => return self.tell(*error),
            Err(error) => error,
        };
        let error = match error.downcast::<StreamTimeout>() {
            Ok(timeout) => {
                let limit = match *timeout {
                    StreamTimeout::Headers => TimeLimit::Headers(self.timeouts.headers_ms),
                    StreamTimeout::Read => TimeLimit::Read(self.timeouts.read_ms),
                };
                return ModelError::TimedOut { model: self.model.clone(), limit };
            }
            Err(error) => error,
        };
        match error.downcast::<reqwest::Error>() {
            Ok(error) => {
                let error = error.without_url();
                let mut cause = error.to_string();
                let mut source = error.source();
                while let Some(inner) = source {
                    cause.push_str(": ");
                    cause.push_str(&inner.to_string());
                    source = inner.source();
                }
                if error.is_body() || error.is_decode() {
                    self.cut(&cause)
                } else if error.is_builder() {
                    self.unfit(&cause)
                } else {
                    ModelError::Unreachable { model: self.model.clone(), cause: self.clean(&cause) }
                }
            }
            Err(error) => self.cut(&error.to_string()),
        }
    }

    /// The provider answered with an error.
    fn answered(&self, status: u16, body: &str, headers: &HeaderMap) -> ModelError {
        let model = self.model.clone();
        let cause = self.clean(&in_words(body));
        let retry_after_ms = retry_after(headers, body).map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
        match status {
            401 | 403 => ModelError::Unauthorized { model, status, cause },
            // What is spent does not come back by waiting.
            429 if body.contains("insufficient_quota") => ModelError::Refused { model, status, cause },
            429 => ModelError::RateLimited { model, retry_after_ms, cause },
            501 | 505 => ModelError::Refused { model, status, cause },
            408 | 425 | 500.. => ModelError::Unavailable { model, status: Some(status), retry_after_ms, cause },
            _ => ModelError::Refused { model, status, cause },
        }
    }

    /// The provider said in the middle of its answer that it cannot go on.
    fn broke_off(&self, body: &Value) -> ModelError {
        let error = body.get("error").unwrap_or(body);
        if let Some(status) = error.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok())
            && (400..600).contains(&status)
        {
            return self.answered(status, &body.to_string(), &HeaderMap::new());
        }
        let word = |field: &str| error.get(field).and_then(Value::as_str).unwrap_or_default();
        let kind = format!("{} {}", word("type"), word("code"));
        let status = [
            ("insufficient_quota", 402),
            ("rate_limit", 429),
            ("authentication", 401),
            ("permission", 403),
            ("not_found", 404),
            ("invalid_request", 400),
        ];
        match status.iter().find(|(word, _)| kind.contains(word)) {
            Some((_, status)) => self.answered(*status, &body.to_string(), &HeaderMap::new()),
            None => ModelError::Unavailable {
                model: self.model.clone(),
                status: None,
                retry_after_ms: None,
                cause: self.clean(&in_words(&body.to_string())),
            },
        }
    }

    /// A text without the key, and not too long.
    fn clean(&self, text: &str) -> String {
        let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some(key) = self.key.map(ExposeSecret::expose_secret).filter(|key| !key.is_empty()) {
            text = text.replace(key, "[key]");
        }
        // Whatever follows this word is somebody's key, if not ours.
        for word in ["Bearer ", "bearer "] {
            let parts: Vec<&str> = text.split(word).collect();
            if let [first, rest @ ..] = parts.as_slice()
                && !rest.is_empty()
            {
                let rest = rest.iter().map(|part| {
                    let end = part.find([' ', '"', '\'', ',']).unwrap_or(part.len());
                    format!("{word}[key]{}", &part[end..])
                });
                text = format!("{first}{}", rest.collect::<String>());
            }
        }
        beginning(&text, CAUSE_CHARS_MAX)
    }
}

/// An error's own words, where its body is as providers write it.
fn in_words(body: &str) -> String {
    let words = || {
        let value: Value = serde_json::from_str(body).ok()?;
        // Gemini puts its error into a list.
        let value = value.get(0).cloned().unwrap_or(value);
        let error = value.get("error").unwrap_or(&value);
        let message = error.as_str().or_else(|| error.get("message")?.as_str())?;
        let kind = ["type", "status", "code"].iter().find_map(|field| error.get(*field)?.as_str());
        Some(kind.map_or_else(|| message.to_owned(), |kind| format!("{kind}: {message}")))
    };
    match words() {
        Some(words) => words,
        None if body.trim().is_empty() => "it gave no reason".to_owned(),
        None => body.to_owned(),
    }
}

/// How long the provider asks to be left alone.
fn retry_after(headers: &HeaderMap, body: &str) -> Option<Duration> {
    let header = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let seconds = |text: &str| text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let by_millis = || seconds(header("retry-after-ms")?).map(|span| span / 1000);
    let by_header = || {
        let value = header("retry-after")?;
        seconds(value).or_else(|| {
            let date = |text: &str| jiff::fmt::rfc2822::parse(text).ok();
            let until = date(value)?;
            // By the provider's clock if it tells: ours may be off.
            let now = header("date").and_then(date).map_or_else(jiff::Timestamp::now, |date| date.timestamp());
            Some(Duration::try_from(until.timestamp().duration_since(now)).unwrap_or_default())
        })
    };
    // Google's way.
    let by_body = || {
        let (_, rest) = body.split_once("\"retryDelay\"")?;
        let (value, _) = rest.split_once('"')?.1.split_once('"')?;
        seconds(value.strip_suffix('s')?)
    };
    by_millis().or_else(by_header).or_else(by_body).map(|span| span.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(headers: &[(&'static str, &str)], body: &str) -> Option<Duration> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        retry_after(&map, body)
    }

    #[test]
    fn a_provider_may_say_in_many_ways_how_long_to_wait() {
        assert_eq!(asked(&[("retry-after", "7")], ""), Some(Duration::from_secs(7)));
        assert_eq!(asked(&[("retry-after", "0.5")], ""), Some(Duration::from_millis(500)));
        assert_eq!(asked(&[("retry-after-ms", "250"), ("retry-after", "1")], ""), Some(Duration::from_millis(250)));
        let dates = [("date", "Wed, 21 Oct 2015 07:28:00 GMT"), ("retry-after", "Wed, 21 Oct 2015 07:28:30 GMT")];
        assert_eq!(asked(&dates, ""), Some(Duration::from_secs(30)));
        assert_eq!(asked(&[], r#"{"error":{"details":[{"retryDelay": "17s"}]}}"#), Some(Duration::from_secs(17)));
    }

    #[test]
    fn nonsense_and_excess_in_retry_after_do_no_harm() {
        for nonsense in ["soon", "-5", "NaN", "", "Thu, 99 Foo"] {
            assert_eq!(asked(&[("retry-after", nonsense)], ""), None, "{nonsense:?}");
        }
        assert_eq!(asked(&[("retry-after", "1e300")], ""), None);
        assert_eq!(asked(&[("retry-after", "99999999")], ""), Some(RETRY_AFTER_MAX));
    }

    #[test]
    fn a_key_is_cut_out_of_what_a_provider_says() {
        let key = SecretString::from("sk-very-secret");
        let teller = Teller { model: "m".to_owned(), key: Some(&key), timeouts: Timeouts::default() };
        let text =
            teller.clean("key sk-very-secret of\n Authorization: Bearer other-secret, \"Bearer third\" is wrong");
        insta::assert_snapshot!(text, @r#"key [key] of Authorization: Bearer [key], "Bearer [key]" is wrong"#);
    }
}
