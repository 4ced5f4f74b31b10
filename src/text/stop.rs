//! Stop strings: text that ends an answer, and is not part of it.

use super::reasoning::partial_suffix;

/// Looks for stop strings in text that comes in pieces. What may be the beginning of one is held back until that is known.
#[derive(Debug, Clone, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
    found: bool,
}

impl StopStrings {
    /// Looks for each of `stops`; empty ones are none.
    pub fn new(stops: impl IntoIterator<Item = String>) -> StopStrings {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        StopStrings { stops, ..StopStrings::default() }
    }

    /// Takes a piece; returns what is certain to come before any stop string. After one was found, nothing comes.
    pub fn push(&mut self, piece: &str) -> String {
        if self.found {
            return String::new();
        }
        self.held += piece;
        // The one that is complete first, however the text is cut into pieces; of two, the longer one.
        let of = |stop: &String| self.held.find(stop.as_str()).map(|at| (at + stop.len(), at));
        let first = self.stops.iter().filter_map(of).min().map(|(_, at)| at);
        let end = first.unwrap_or_else(|| self.held.len() - partial_suffix(&self.held, &self.stops));
        self.found = first.is_some();
        let rest = self.held.split_off(end);
        let text = std::mem::replace(&mut self.held, rest);
        if self.found {
            self.held.clear();
        }
        text
    }

    /// Whether one was found.
    pub fn found(&self) -> bool {
        self.found
    }

    /// Ends the text; returns what was held back.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut of = StopStrings::new(stops.iter().map(|s| s.to_string()));
        let mut texts: Vec<String> = pieces.iter().map(|piece| of.push(piece)).collect();
        texts.push(of.finish());
        (texts, of.found())
    }

    #[test]
    fn a_stop_string_is_found_across_pieces_and_not_given() {
        assert_eq!(run(&["\n\n"], &["a\n", "b\n", "\nc"]), (["a", "\nb", "", ""].map(String::from).to_vec(), true));
        assert_eq!(run(&["END"], &["xEN", "E", "ND", "y"]).0.concat(), "xEN");
        assert_eq!(run(&["STOP"], &["what STOPS"]).0.concat(), "what ");
        // The one that is complete first counts, however the text is cut.
        assert_eq!(run(&["abc", "b"], &["ab", "c"]).0.concat(), run(&["abc", "b"], &["abc"]).0.concat());
        assert_eq!(run(&["bcd", "b"], &["a", "bcd"]), (["a", "", ""].map(String::from).to_vec(), true));
    }

    #[test]
    fn what_was_no_stop_string_comes_in_the_end() {
        assert_eq!(run(&["END"], &["the EN"]), (["the ", "EN"].map(String::from).to_vec(), false));
        assert_eq!(run(&["aab"], &["aa", "aa", "a"]).0, ["", "aa", "a", "aa"]);
        assert_eq!(run(&["é!"], &["caf", "é", "?"]).0, ["caf", "", "é?", ""]);
        assert_eq!(run(&[""], &["x", ""]), (["x", "", ""].map(String::from).to_vec(), false));
    }
}
