//! Just enough of a Rust lexer to tell code from comments and literals.

/// The text with comments and the insides of string and character literals turned into spaces. Lines stay lines.
pub(crate) fn code_only(text: &str) -> String {
    Lexer { chars: text.chars().collect(), at: 0, out: String::with_capacity(text.len()) }.run()
}

/// Whether `word` stands in `line` with no letter, digit or underscore on either side.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    out: String,
}

impl Lexer {
    fn run(mut self) -> String {
        while let Some(c) = self.peek(0) {
            match c {
                '/' if self.peek(1) == Some('/') => {
                    self.blank_while(|lexer| lexer.peek(0) != Some('\n'));
                }
                '/' if self.peek(1) == Some('*') => self.block_comment(),
                '"' => self.string(),
                '\'' => self.quote(),
                'r' if !self.follows_identifier() && self.raw_hashes().is_some() => {
                    self.raw_string();
                }
                _ => self.keep(),
            }
        }
        self.out
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn keep(&mut self) {
        self.out.extend(self.peek(0));
        self.at += 1;
    }

    fn blank(&mut self) {
        self.out.extend(self.peek(0).map(|c| if c == '\n' { c } else { ' ' }));
        self.at += 1;
    }

    fn blank_while(&mut self, more: impl Fn(&Self) -> bool) {
        while self.peek(0).is_some() && more(self) {
            self.blank();
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        while self.peek(0).is_some() {
            let step = match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => 1,
                (Some('*'), Some('/')) => -1,
                _ => 0,
            };
            depth += step;
            self.blank();
            if step != 0 {
                self.blank();
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        self.keep();
        while let Some(c) = self.peek(0) {
            if c == '"' {
                self.keep();
                return;
            }
            if c == '\\' {
                self.blank();
            }
            self.blank();
        }
    }

    /// A character literal or a lifetime.
    fn quote(&mut self) {
        self.keep();
        if self.peek(0) == Some('\\') {
            self.blank();
            self.blank();
            self.blank_while(|lexer| lexer.peek(0) != Some('\''));
            self.keep();
        } else if self.peek(1) == Some('\'') {
            self.blank();
            self.keep();
        }
    }

    /// Before the `r` of `br` and `cr` stands one letter that is no identifier by itself.
    fn follows_identifier(&self) -> bool {
        let is_part = |c: &char| c.is_alphanumeric() || *c == '_';
        let before = |back: usize| {
            self.at.checked_sub(back).and_then(|at| self.chars.get(at)).filter(|c| is_part(c))
        };
        match before(1) {
            Some('b' | 'c') => before(2).is_some(),
            other => other.is_some(),
        }
    }

    fn raw_hashes(&self) -> Option<usize> {
        let num_hashes = self.chars[self.at + 1..].iter().take_while(|c| **c == '#').count();
        (self.peek(1 + num_hashes) == Some('"')).then_some(num_hashes)
    }

    fn raw_string(&mut self) {
        let num_hashes = self.raw_hashes().unwrap_or(0);
        for _ in 0..num_hashes + 2 {
            self.keep();
        }
        self.blank_while(|lexer| {
            let closes = lexer.peek(0) == Some('"')
                && (1..=num_hashes).all(|ahead| lexer.peek(ahead) == Some('#'));
            !closes
        });
        for _ in 0..=num_hashes {
            self.keep();
        }
    }
}
