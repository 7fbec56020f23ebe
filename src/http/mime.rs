//! The media type of a file, by its extension.

/// The value of `Content-Type` for a file with this extension, case aside, with `charset=utf-8` on
/// what is text; `application/octet-stream` when the extension is missing or unknown.
///
/// Together with `X-Content-Type-Options: nosniff` a type that is not known is downloaded, never
/// run.
pub fn content_type(extension: Option<&str>) -> String {
    let guess = extension.and_then(|extension| mime_guess2::from_ext(extension).first_raw());
    let essence = match guess {
        None => UNKNOWN,
        // RFC 9239 section 6: the other names of JavaScript are obsolete.
        Some("application/javascript") => "text/javascript",
        Some(essence) => essence,
    };
    // JSON has no charset (RFC 8259 section 11), and XML says it in its first line.
    if essence.starts_with("text/") {
        format!("{essence}; charset=utf-8")
    } else {
        essence.to_owned()
    }
}

/// The type of bytes of which nothing is known (RFC 2046 section 4.5.1).
const UNKNOWN: &str = "application/octet-stream";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_web_page_is_made_of_has_its_type() {
        for (extension, expected) in [
            ("html", "text/html; charset=utf-8"),
            ("HTM", "text/html; charset=utf-8"),
            ("css", "text/css; charset=utf-8"),
            ("js", "text/javascript; charset=utf-8"),
            ("mjs", "text/javascript; charset=utf-8"),
            ("txt", "text/plain; charset=utf-8"),
            ("csv", "text/csv; charset=utf-8"),
            ("json", "application/json"),
            ("svg", "image/svg+xml"),
            ("png", "image/png"),
            ("jpg", "image/jpeg"),
            ("webp", "image/webp"),
            ("avif", "image/avif"),
            ("ico", "image/x-icon"),
            ("woff2", "font/woff2"),
            ("wasm", "application/wasm"),
            ("pdf", "application/pdf"),
            ("mp4", "video/mp4"),
            ("webmanifest", "application/manifest+json"),
        ] {
            assert_eq!(content_type(Some(extension)), expected, "{extension}");
        }
    }

    #[test]
    fn what_is_not_known_is_bytes() {
        for extension in [
            None,
            Some(""),
            Some("no-such-type"),
            Some("\u{e9}"),
            Some("a/b"),
        ] {
            assert_eq!(content_type(extension), "application/octet-stream");
        }
    }
}
