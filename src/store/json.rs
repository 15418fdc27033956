//! Parameters of set-based statements: a JSON array of arrays of small fields, pushed by hand.

/// A JSON array of rows under construction.
#[derive(Debug, Default)]
pub(super) struct Json(Vec<u8>);

impl Json {
    /// Begins another row; its fields follow.
    pub(super) fn row(&mut self) -> &mut Self {
        match self.0.pop() {
            // The last row's end: `]`, which stays.
            Some(end) => self.0.extend_from_slice(&[end, b',', b'[', b']']),
            None => self.0.extend_from_slice(b"[[]"),
        }
        self
    }

    fn field(&mut self) {
        // Every row ends in a bracket that its next field moves on.
        self.0.pop();
        if self.0.last() != Some(&b'[') {
            self.0.push(b',');
        }
    }

    pub(super) fn int(&mut self, value: i64) -> &mut Self {
        self.field();
        let mut digits = [0_u8; 20];
        let mut at = digits.len();
        let mut rest = value.unsigned_abs();
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if value < 0 {
            self.0.push(b'-');
        }
        self.0.extend_from_slice(&digits[at..]);
        self.0.push(b']');
        self
    }

    pub(super) fn size(&mut self, value: usize) -> &mut Self {
        self.int(i64::try_from(value).unwrap_or(i64::MAX))
    }

    pub(super) fn maybe(&mut self, value: Option<i64>) -> &mut Self {
        match value {
            Some(value) => self.int(value),
            None => self.null(),
        }
    }

    pub(super) fn null(&mut self) -> &mut Self {
        self.field();
        self.0.extend_from_slice(b"null]");
        self
    }

    pub(super) fn text(&mut self, value: &str) -> &mut Self {
        self.field();
        let plain = value.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\');
        if plain {
            self.0.push(b'"');
            self.0.extend_from_slice(value.as_bytes());
            self.0.push(b'"');
        } else {
            self.0.extend_from_slice(serde_json::Value::from(value).to_string().as_bytes());
        }
        self.0.push(b']');
        self
    }

    /// The whole, if there is a row.
    pub(super) fn done(mut self) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        self.0.push(b']');
        // Only texts and digits went in.
        String::from_utf8(self.0).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_pushed_as_arrays_of_fields() {
        let mut json = Json::default();
        json.row().int(-120).null().text("a \"b\"\n");
        json.row();
        json.row().size(7).maybe(None).maybe(Some(0));
        insta::assert_snapshot!(json.done().unwrap(), @r#"[[-120,null,"a \"b\"\n"],[],[7,null,0]]"#);
    }

    #[test]
    fn no_row_is_no_parameter() {
        assert_eq!(Json::default().done(), None);
    }
}
