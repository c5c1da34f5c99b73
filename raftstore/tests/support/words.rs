//! Parser of a script's steps.

/// Words of a step, taken from the front or by name.
pub struct Words<'a>(Vec<&'a str>);

impl<'a> Words<'a> {
    pub fn new(text: &'a str) -> Self {
        Words(text.split_whitespace().collect())
    }

    pub fn take(&mut self) -> &'a str {
        assert!(!self.0.is_empty(), "a word is missing");
        self.0.remove(0)
    }

    pub fn number(&mut self) -> u64 {
        let word = self.take();
        word.parse().unwrap_or_else(|_| panic!("{word:?} is not a number"))
    }

    /// Takes the next word, if it is a number.
    pub fn maybe_number(&mut self) -> Option<u64> {
        let number = self.0.first()?.parse().ok()?;
        self.0.remove(0);
        Some(number)
    }

    pub fn flag(&mut self, name: &str) -> bool {
        let place = self.0.iter().position(|word| *word == name);
        place.map(|place| self.0.remove(place)).is_some()
    }

    /// Takes the value of `name=`.
    pub fn named(&mut self, name: &str) -> Option<&'a str> {
        let value = |word: &'a str| word.strip_prefix(name)?.strip_prefix('=');
        let place = self.0.iter().position(|word| value(word).is_some())?;
        value(self.0.remove(place))
    }

    pub fn named_number(&mut self, name: &str) -> Option<u64> {
        self.named(name).map(|value| value.parse().unwrap())
    }

    pub fn link(&mut self) -> Link {
        if self.0.is_empty() { Link::default() } else { Link::parse(self.take()) }
    }

    /// Takes all remaining words, with lists split at commas.
    pub fn list(&mut self) -> Vec<String> {
        let text = std::mem::take(&mut self.0).join(" ");
        text.split(", ").map(str::to_owned).collect()
    }

    pub fn expect_end(&self) {
        assert!(self.0.is_empty(), "not understood: {:?}", self.0);
    }
}

/// Messages of a step, by sender and receiver. 0 is any node.
#[derive(Clone, Copy, Default, Debug)]
pub struct Link {
    from: u64,
    to: u64,
    both_ways: bool,
}

impl Link {
    fn parse(word: &str) -> Self {
        let both_ways = word.contains("<->");
        let ends = word.split_once(if both_ways { "<->" } else { "->" });
        let (from, to) = ends.unwrap_or_else(|| panic!("{word:?} is not a link"));
        let node = |end: &str| if end.is_empty() { 0 } else { end.parse().unwrap() };
        Link { from: node(from), to: node(to), both_ways }
    }

    /// All messages to a node.
    pub fn to(node: u64) -> Self {
        Link { to: node, ..Link::default() }
    }

    pub fn holds(self, from: u64, to: u64) -> bool {
        let one_way = |a: u64, b: u64| [0, a].contains(&self.from) && [0, b].contains(&self.to);
        one_way(from, to) || (self.both_ways && one_way(to, from))
    }

    /// Both ends, for steps that need them.
    pub fn ends(self) -> (u64, u64) {
        assert!(self.from != 0 && self.to != 0, "both ends of the link are needed");
        (self.from, self.to)
    }
}

/// Expands `x*600`.
pub fn written_out(text: &str) -> String {
    match text.rsplit_once('=') {
        Some((head, value)) => match value.split_once('*') {
            Some((part, times)) => format!("{head}={}", part.repeat(times.parse().unwrap())),
            None => text.to_owned(),
        },
        None => text.to_owned(),
    }
}

/// Shortens a long run of one letter to the form that [`written_out`] takes.
pub fn shortened(text: &str) -> String {
    match text.rsplit_once('=') {
        Some((head, value)) => format!("{head}={}", shortened_value(value)),
        None => text.to_owned(),
    }
}

pub fn shortened_value(value: &str) -> String {
    let first = value.chars().next().unwrap_or_default();
    if value.len() > 20 && value.chars().all(|c| c == first) {
        format!("{first}*{}", value.len())
    } else {
        value.to_owned()
    }
}
