//! `NAME@VALUE:key=value:key=value` as a person types it, taken apart. What is not used up is an error that names it.

/// A specification whose keys are taken one by one.
pub(crate) struct Spec<'a> {
    /// All of it, for messages.
    text: &'a str,
    /// Before the first `@`.
    pub(crate) name: &'a str,
    /// Between the `@` and the first `:`.
    pub(crate) value: &'a str,
    options: Vec<(&'a str, &'a str)>,
}

impl<'a> Spec<'a> {
    pub(crate) fn new(text: &'a str) -> Result<Self, String> {
        let (head, options) = text.split_once(':').map_or((text, None), |(head, rest)| (head, Some(rest)));
        let (name, value) = head.split_once('@').ok_or_else(|| format!("{text:?}: want NAME@VALUE"))?;
        let pair = |part: &'a str| part.split_once('=').ok_or_else(|| format!("{text:?}: {part:?} is not KEY=VALUE"));
        let options = options.map_or(Ok(Vec::new()), |all| all.split(':').map(pair).collect())?;
        Ok(Self { text, name, value, options })
    }

    /// The value of `key`, read by `parse`, or `default`.
    pub(crate) fn take<T>(
        &mut self,
        key: &str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, String> {
        match self.options.iter().position(|(name, _)| *name == key) {
            None => Ok(default),
            Some(at) => {
                let (_, value) = self.options.remove(at);
                parse(value).map_err(|error| format!("{:?}: {key}: {error}", self.text))
            }
        }
    }

    /// Fails when a key is left over; `known` is what could have been said.
    pub(crate) fn done(self, known: &str) -> Result<(), String> {
        match self.options.first() {
            None => Ok(()),
            Some((key, _)) => Err(format!("{:?}: {} takes no {key:?} (it takes {known})", self.text, self.name)),
        }
    }
}

/// A rate a second, above 0.
pub(crate) fn parse_rate(text: &str) -> Result<f64, String> {
    within(text, f64::MIN_POSITIVE, 1e7, "a rate a second above 0 and up to 10000000, like 5000")
}

/// A number in a range that the message describes.
pub(crate) fn within(text: &str, least: f64, most: f64, want: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok().filter(|n: &f64| (least..=most).contains(n));
    number.ok_or_else(|| format!("{text:?}: want {want}"))
}
