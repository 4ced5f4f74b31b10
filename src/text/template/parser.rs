//! From tokens to the syntax tree: Jinja2's grammar, less everything that reaches other files (`include`, `import`,
//! `extends`), plus `{% generation %}` and the loop controls that transformers adds.
//!
//! Nesting is capped at [`MAX_NESTING`], so neither parsing, nor walking, nor dropping a tree can exhaust the stack.

use super::ast::*;
use super::fault::{Fault, Result};
use super::lexer::{Token, tokenize};
use std::sync::Arc;

/// The deepest nesting of blocks and brackets in a template. Real ones stay below 20.
pub const MAX_NESTING: usize = 64;

/// The longest template source, in bytes. Real ones stay below 32 KiB.
pub const MAX_SOURCE: usize = 1 << 20;

/// Parses a template.
pub fn parse(source: &str) -> Result<Block> {
    if source.len() > MAX_SOURCE {
        return Err(Fault::limit(format!("a template of {} bytes; at most {MAX_SOURCE}", source.len())));
    }
    let mut parser = Parser { tokens: tokenize(source)?, at: 0, nesting: 0, loops: 0 };
    let block = parser.block(&[])?;
    debug_assert_eq!(*parser.peek(), Token::End);
    Ok(block)
}

pub(super) struct Parser {
    tokens: Vec<(Token, u32)>,
    at: usize,
    nesting: usize,
    /// Loops around the current place, for `break` and `continue`.
    loops: usize,
}

impl Parser {
    pub fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    pub fn peek_second(&self) -> &Token {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].0
    }

    pub fn line(&self) -> u32 {
        self.tokens[self.at].1
    }

    pub fn next(&mut self) -> Token {
        let token = self.tokens[self.at].0.clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    pub fn is_op(&self, op: &str) -> bool {
        matches!(self.peek(), Token::Op(found) if *found == op)
    }

    pub fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Token::Name(found) if **found == *name)
    }

    /// Takes the operator if it comes next.
    pub fn take_op(&mut self, op: &str) -> bool {
        let found = self.is_op(op);
        if found {
            self.next();
        }
        found
    }

    /// Takes the word if it comes next.
    pub fn take_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        if found {
            self.next();
        }
        found
    }

    pub fn expect_op(&mut self, op: &str) -> Result<()> {
        if self.take_op(op) { Ok(()) } else { self.unexpected(op) }
    }

    pub fn name(&mut self) -> Result<Arc<str>> {
        match self.peek() {
            Token::Name(name) => {
                let name = name.clone();
                self.next();
                Ok(name)
            }
            _ => self.unexpected("a name"),
        }
    }

    pub fn unexpected<T>(&self, wanted: &str) -> Result<T> {
        let found = match self.peek() {
            Token::Text(_) => "text".to_string(),
            Token::OutputStart => "{{".to_string(),
            Token::OutputEnd => "}}".to_string(),
            Token::BlockStart => "{%".to_string(),
            Token::BlockEnd => "%}".to_string(),
            Token::Name(name) => name.to_string(),
            Token::Str(text) => format!("{text:?}"),
            Token::Int(number) => number.to_string(),
            Token::Float(number) => number.to_string(),
            Token::Op(op) => op.to_string(),
            Token::End => "the end of the template".to_string(),
        };
        Err(Fault::syntax(format!("expected {wanted}, found {found}"), self.line()))
    }

    /// Runs `parse` one level deeper.
    pub fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            let what = format!("nested more than {MAX_NESTING} deep");
            return Err(Fault { line: self.line(), ..Fault::limit(what) });
        }
        let parsed = parse(self);
        self.nesting -= 1;
        parsed
    }

    /// Statements up to a block tag whose word is in `ends`; that tag's `{%` and word are eaten. At top level, to the end.
    fn block(&mut self, ends: &[&str]) -> Result<Block> {
        let mut block = Vec::new();
        loop {
            let line = self.line();
            match self.next() {
                Token::Text(text) => block.push(Stmt { line, kind: StmtKind::Text(text) }),
                Token::OutputStart => {
                    let expr = self.tuple_expr()?;
                    if *self.peek() != Token::OutputEnd {
                        return self.unexpected("}}");
                    }
                    self.next();
                    block.push(Stmt { line, kind: StmtKind::Output(expr) });
                }
                Token::BlockStart => {
                    if let Token::Name(word) = self.peek()
                        && ends.contains(&&**word)
                    {
                        return Ok(block);
                    }
                    let kind = self.nested(Self::statement)?;
                    block.push(Stmt { line, kind });
                }
                Token::End if ends.is_empty() => return Ok(block),
                // Outside tags there is nothing else but the end.
                _ => return self.unexpected(&format!("{{% {} %}}", ends.join(" %} or {% "))),
            }
        }
    }

    /// The body of a block tag: its `%}`, statements, and the whole closing tag.
    fn body(&mut self, end: &str) -> Result<Block> {
        self.end_tag()?;
        let body = self.block(&[end])?;
        self.next();
        if end == "endmacro" || end == "endcall" {
            // Jinja2 lets the closing tag repeat the macro's name.
            if let Token::Name(_) = self.peek() {
                self.next();
            }
        }
        self.end_tag()?;
        Ok(body)
    }

    fn end_tag(&mut self) -> Result<()> {
        if *self.peek() != Token::BlockEnd {
            return self.unexpected("%}");
        }
        self.next();
        Ok(())
    }

    fn statement(&mut self) -> Result<StmtKind> {
        let line = self.line();
        let word = self.name()?;
        let kind = match &*word {
            "if" => return self.if_statement(),
            "for" => return self.for_statement(),
            "set" => return self.set_statement(),
            "macro" => {
                let name = self.name()?;
                let params = self.params()?;
                let body = self.outside_loops(|p| p.body("endmacro"))?;
                return Ok(StmtKind::Macro(Arc::new(Macro { name, params, body })));
            }
            "call" => {
                let params = if self.is_op("(") { self.params()? } else { Vec::new() };
                let call = self.expr()?;
                let body = self.outside_loops(|p| p.body("endcall"))?;
                return Ok(StmtKind::CallBlock(call, Arc::new(Macro { name: "caller".into(), params, body })));
            }
            "filter" => {
                let filters = self.filters()?;
                return Ok(StmtKind::Filter(filters, self.body("endfilter")?));
            }
            "with" => return self.with_statement(),
            "generation" => return Ok(StmtKind::Generation(self.body("endgeneration")?)),
            "do" => StmtKind::Do(self.tuple_expr()?),
            "break" | "continue" if self.loops == 0 => {
                return Err(Fault::syntax(format!("{word} outside a loop"), line));
            }
            "break" => StmtKind::Break,
            "continue" => StmtKind::Continue,
            "include" | "import" | "from" | "extends" | "block" => {
                return Err(Fault::syntax(format!("{word}: a chat template cannot reach other templates"), line));
            }
            _ => return Err(Fault::syntax(format!("unknown tag {word}"), line)),
        };
        self.end_tag()?;
        Ok(kind)
    }

    fn outside_loops<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let loops = std::mem::take(&mut self.loops);
        let parsed = parse(self);
        self.loops = loops;
        parsed
    }

    fn if_statement(&mut self) -> Result<StmtKind> {
        let mut branches = Vec::new();
        let mut otherwise = Vec::new();
        loop {
            let test = self.tuple_expr()?;
            self.end_tag()?;
            branches.push((test, self.block(&["elif", "else", "endif"])?));
            if self.take_name("elif") {
                continue;
            }
            if self.take_name("else") {
                self.end_tag()?;
                otherwise = self.block(&["endif"])?;
            }
            self.next();
            self.end_tag()?;
            return Ok(StmtKind::If { branches, otherwise });
        }
    }

    fn for_statement(&mut self) -> Result<StmtKind> {
        let target = self.target()?;
        if !self.take_name("in") {
            return self.unexpected("in");
        }
        let iter = self.loop_source()?;
        let filter = if self.take_name("if") { Some(self.expr()?) } else { None };
        let recursive = self.take_name("recursive");
        self.end_tag()?;
        self.loops += 1;
        let body = self.block(&["else", "endfor"])?;
        self.loops -= 1;
        let mut otherwise = Vec::new();
        if self.take_name("else") {
            self.end_tag()?;
            otherwise = self.block(&["endfor"])?;
        }
        self.next();
        self.end_tag()?;
        Ok(StmtKind::For(Arc::new(For { target, iter, filter, body, otherwise, recursive })))
    }

    fn set_statement(&mut self) -> Result<StmtKind> {
        let target = self.target()?;
        if self.take_op("=") {
            let value = self.tuple_expr()?;
            self.end_tag()?;
            return Ok(StmtKind::Set(target, value));
        }
        let filters = if self.take_op("|") { self.filters()? } else { Vec::new() };
        Ok(StmtKind::SetBlock(target, filters, self.body("endset")?))
    }

    fn with_statement(&mut self) -> Result<StmtKind> {
        let mut assignments = Vec::new();
        while *self.peek() != Token::BlockEnd {
            if !assignments.is_empty() {
                self.expect_op(",")?;
            }
            let target = self.target()?;
            self.expect_op("=")?;
            assignments.push((target, self.expr()?));
        }
        Ok(StmtKind::With(assignments, self.body("endwith")?))
    }

    /// `(a, b=1)` of a macro.
    fn params(&mut self) -> Result<Vec<(Arc<str>, Option<Expr>)>> {
        self.expect_op("(")?;
        let mut params = Vec::new();
        while !self.take_op(")") {
            if !params.is_empty() {
                self.expect_op(",")?;
                if self.take_op(")") {
                    break;
                }
            }
            let name = self.name()?;
            let default = if self.take_op("=") { Some(self.expr()?) } else { None };
            params.push((name, default));
        }
        Ok(params)
    }

    fn target(&mut self) -> Result<Target> {
        let first = self.single_target()?;
        if !self.is_op(",") {
            return Ok(first);
        }
        let mut targets = vec![first];
        while self.take_op(",") {
            if self.is_name("in") || self.is_op("=") {
                break;
            }
            targets.push(self.single_target()?);
        }
        Ok(Target::Tuple(targets))
    }

    fn single_target(&mut self) -> Result<Target> {
        if self.take_op("(") {
            let inner = self.nested(Self::target)?;
            self.expect_op(")")?;
            return Ok(inner);
        }
        let name = self.name()?;
        if self.take_op(".") { Ok(Target::Attr(name, self.name()?)) } else { Ok(Target::Name(name)) }
    }
}
