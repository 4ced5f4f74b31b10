//! The expression half of the parser: Jinja2's precedence, from `if … else` down to primaries and what follows them.

use super::ast::*;
use super::fault::{Fault, Result};
use super::lexer::Token;
use super::parser::Parser;
use std::sync::Arc;

const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Eq),
    ("!=", Comparison::Ne),
    ("<", Comparison::Lt),
    ("<=", Comparison::Le),
    (">", Comparison::Gt),
    (">=", Comparison::Ge),
];

/// Arithmetic by precedence, loosest first; `~` binds between the two halves.
const SUMS: [(&str, Operator); 2] = [("+", Operator::Add), ("-", Operator::Sub)];
const PRODUCTS: [(&str, Operator); 4] =
    [("*", Operator::Mul), ("/", Operator::Div), ("//", Operator::FloorDiv), ("%", Operator::Mod)];
const POWERS: [(&str, Operator); 1] = [("**", Operator::Pow)];

impl Parser {
    /// An expression, or several with commas, which make a tuple.
    pub fn tuple_expr(&mut self) -> Result<Expr> {
        self.tuple_of(Self::expr)
    }

    /// What a loop runs over: like [`Parser::tuple_expr`], but an `if` after it is the loop's filter.
    pub fn loop_source(&mut self) -> Result<Expr> {
        self.tuple_of(|p| p.nested(Self::or))
    }

    fn tuple_of(&mut self, one: impl Fn(&mut Self) -> Result<Expr>) -> Result<Expr> {
        let line = self.line();
        let first = one(self)?;
        if !self.is_op(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.take_op(",") {
            if matches!(self.peek(), Token::OutputEnd | Token::BlockEnd) || self.is_op(")") {
                break;
            }
            items.push(one(self)?);
        }
        Ok(Expr { line, kind: ExprKind::Tuple(items) })
    }

    pub fn expr(&mut self) -> Result<Expr> {
        self.nested(|p| {
            let mut expr = p.or()?;
            // `a if b` without `else` may be followed by another `if`; each takes a level of the tree.
            let mut links = 0;
            while p.is_name("if") {
                links += 1;
                if links > 8 {
                    return Err(Fault::syntax("too many ifs in a row", p.line()));
                }
                let line = p.line();
                p.next();
                let test = Box::new(p.or()?);
                let otherwise = if p.take_name("else") { Some(Box::new(p.expr()?)) } else { None };
                expr = Expr { line, kind: ExprKind::If { test, then: Box::new(expr), otherwise } };
            }
            Ok(expr)
        })
    }

    pub fn or(&mut self) -> Result<Expr> {
        self.words("or", Self::and, ExprKind::Or)
    }

    fn and(&mut self) -> Result<Expr> {
        self.words("and", Self::not, ExprKind::And)
    }

    fn words(
        &mut self,
        word: &str,
        operand: fn(&mut Self) -> Result<Expr>,
        make: fn(Vec<Expr>) -> ExprKind,
    ) -> Result<Expr> {
        let line = self.line();
        let first = operand(self)?;
        if !self.is_name(word) {
            return Ok(first);
        }
        let mut operands = vec![first];
        while self.take_name(word) {
            operands.push(operand(self)?);
        }
        Ok(Expr { line, kind: make(operands) })
    }

    fn not(&mut self) -> Result<Expr> {
        let line = self.line();
        if self.take_name("not") {
            let inner = self.nested(Self::not)?;
            return Ok(Expr { line, kind: ExprKind::Not(Box::new(inner)) });
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Expr> {
        let line = self.line();
        let first = self.sum()?;
        let mut links = Vec::new();
        loop {
            let found = COMPARISONS.iter().find(|(op, _)| self.is_op(op)).map(|(_, comparison)| *comparison);
            let comparison = if let Some(comparison) = found {
                self.next();
                comparison
            } else if self.take_name("in") {
                Comparison::In
            } else if self.is_name("not") && matches!(self.peek_second(), Token::Name(word) if **word == *"in") {
                self.next();
                self.next();
                Comparison::NotIn
            } else {
                break;
            };
            links.push((comparison, self.sum()?));
        }
        if links.is_empty() {
            return Ok(first);
        }
        Ok(Expr { line, kind: ExprKind::Compare(Box::new(first), links) })
    }

    fn sum(&mut self) -> Result<Expr> {
        self.arithmetic(&SUMS, Self::concat)
    }

    fn concat(&mut self) -> Result<Expr> {
        let line = self.line();
        let first = self.product()?;
        if !self.is_op("~") {
            return Ok(first);
        }
        let mut operands = vec![first];
        while self.take_op("~") {
            operands.push(self.product()?);
        }
        Ok(Expr { line, kind: ExprKind::Concat(operands) })
    }

    fn product(&mut self) -> Result<Expr> {
        self.arithmetic(&PRODUCTS, |p| p.arithmetic(&POWERS, |p| p.unary(true)))
    }

    fn arithmetic(
        &mut self,
        operators: &[(&str, Operator)],
        operand: impl Fn(&mut Self) -> Result<Expr>,
    ) -> Result<Expr> {
        let line = self.line();
        let first = operand(self)?;
        let mut links = Vec::new();
        while let Some((_, operator)) = operators.iter().find(|(op, _)| self.is_op(op)) {
            self.next();
            links.push((*operator, operand(self)?));
        }
        if links.is_empty() {
            return Ok(first);
        }
        Ok(Expr { line, kind: ExprKind::Arithmetic(Box::new(first), links) })
    }

    /// A sign binds tighter than filters: `-x|abs` is `(-x)|abs`.
    fn unary(&mut self, with_filters: bool) -> Result<Expr> {
        let line = self.line();
        let base = if self.take_op("-") {
            let inner = self.nested(|p| p.unary(false))?;
            Expr { line, kind: ExprKind::Neg(Box::new(inner)) }
        } else if self.take_op("+") {
            self.nested(|p| p.unary(false))?
        } else {
            self.primary()?
        };
        let mut posts = Vec::new();
        self.subscripts_and_calls(&mut posts)?;
        if with_filters {
            self.filters_and_tests(&mut posts)?;
        }
        if posts.is_empty() {
            return Ok(base);
        }
        Ok(Expr { line, kind: ExprKind::Postfix(Box::new(base), posts) })
    }

    fn subscripts_and_calls(&mut self, posts: &mut Vec<(u32, Post)>) -> Result<()> {
        loop {
            let line = self.line();
            if self.take_op(".") {
                let post = match self.next() {
                    Token::Name(name) => Post::Attr(name),
                    Token::Int(index) => Post::Item(Expr { line, kind: ExprKind::Const(Const::Int(index)) }),
                    _ => return Err(Fault::syntax("expected a name after the dot", line)),
                };
                posts.push((line, post));
            } else if self.take_op("[") {
                posts.push((line, self.nested(Self::subscript)?));
            } else if self.is_op("(") {
                posts.push((line, Post::Call(self.args()?)));
            } else {
                return Ok(());
            }
        }
    }

    fn subscript(&mut self) -> Result<Post> {
        let bound = |p: &mut Self| if p.is_op(":") || p.is_op("]") { Ok(None) } else { p.expr().map(Some) };
        let start = bound(self)?;
        if !self.is_op(":") {
            self.expect_op("]")?;
            return match start {
                Some(index) => Ok(Post::Item(index)),
                None => self.unexpected("an index"),
            };
        }
        self.next();
        let stop = bound(self)?;
        let step = if self.take_op(":") { bound(self)? } else { None };
        self.expect_op("]")?;
        Ok(Post::Slice(start, stop, step))
    }

    fn filters_and_tests(&mut self, posts: &mut Vec<(u32, Post)>) -> Result<()> {
        loop {
            let line = self.line();
            if self.take_op("|") {
                posts.push(self.filter(line)?);
            } else if self.take_name("is") {
                let negated = self.take_name("not");
                let name = self.name()?;
                let args = self.test_args()?;
                posts.push((line, Post::Test { name, args, negated }));
            } else if self.is_op("(") {
                posts.push((line, Post::Call(self.args()?)));
            } else {
                return Ok(());
            }
        }
    }

    fn filter(&mut self, line: u32) -> Result<(u32, Post)> {
        let name = self.name()?;
        let args = if self.is_op("(") { self.args()? } else { Args::default() };
        Ok((line, Post::Filter(name, args)))
    }

    /// Filters with pipes between them, the first without: of `{% filter %}` and `{% set x | … %}`.
    pub fn filters(&mut self) -> Result<Vec<(u32, Post)>> {
        let mut filters = Vec::new();
        loop {
            let line = self.line();
            filters.push(self.filter(line)?);
            if !self.take_op("|") {
                return Ok(filters);
            }
        }
    }

    /// A test's arguments: in brackets, or one primary without them.
    fn test_args(&mut self) -> Result<Args> {
        if self.is_op("(") {
            return self.args();
        }
        let bare = match self.peek() {
            Token::Name(word) => !matches!(&**word, "else" | "or" | "and" | "is" | "if" | "in" | "not" | "recursive"),
            Token::Str(_) | Token::Int(_) | Token::Float(_) => true,
            Token::Op(op) => matches!(*op, "[" | "{"),
            _ => false,
        };
        let mut args = Args::default();
        if bare {
            let line = self.line();
            let base = self.primary()?;
            let mut posts = Vec::new();
            self.subscripts_and_calls(&mut posts)?;
            args.positional.push(Expr { line, kind: ExprKind::Postfix(Box::new(base), posts) });
        }
        Ok(args)
    }

    fn args(&mut self) -> Result<Args> {
        self.expect_op("(")?;
        let mut args = Args::default();
        let mut first = true;
        while !self.take_op(")") {
            if !std::mem::take(&mut first) {
                self.expect_op(",")?;
                if self.take_op(")") {
                    break;
                }
            }
            if self.take_op("**") {
                args.named_splat = Some(Box::new(self.expr()?));
            } else if self.take_op("*") {
                args.splat = Some(Box::new(self.expr()?));
            } else if matches!(self.peek(), Token::Name(_)) && *self.peek_second() == Token::Op("=") {
                let name = self.name()?;
                self.next();
                args.named.push((name, self.expr()?));
            } else if args.named.is_empty() {
                args.positional.push(self.expr()?);
            } else {
                return self.unexpected("a named argument");
            }
        }
        Ok(args)
    }

    fn primary(&mut self) -> Result<Expr> {
        let line = self.line();
        let kind = match self.peek().clone() {
            Token::Name(name) => {
                self.next();
                match &*name {
                    "true" | "True" => ExprKind::Const(Const::Bool(true)),
                    "false" | "False" => ExprKind::Const(Const::Bool(false)),
                    "none" | "None" => ExprKind::Const(Const::None),
                    _ => ExprKind::Name(name),
                }
            }
            Token::Str(_) => ExprKind::Const(Const::Str(self.strings())),
            Token::Int(number) => {
                self.next();
                ExprKind::Const(Const::Int(number))
            }
            Token::Float(number) => {
                self.next();
                ExprKind::Const(Const::Float(number))
            }
            Token::Op("(") => {
                self.next();
                if self.take_op(")") {
                    return Ok(Expr { line, kind: ExprKind::Tuple(Vec::new()) });
                }
                let inner = self.tuple_expr()?;
                self.expect_op(")")?;
                return Ok(inner);
            }
            Token::Op("[") => {
                self.next();
                ExprKind::List(self.items("]", Self::expr)?)
            }
            Token::Op("{") => {
                self.next();
                ExprKind::Dict(self.items("}", |p| {
                    let key = p.expr()?;
                    p.expect_op(":")?;
                    Ok((key, p.expr()?))
                })?)
            }
            _ => return self.unexpected("an expression"),
        };
        Ok(Expr { line, kind })
    }

    /// Neighbouring string literals are one.
    fn strings(&mut self) -> Arc<str> {
        let mut all = String::new();
        while let Token::Str(text) = self.peek() {
            all.push_str(text);
            self.next();
        }
        all.into()
    }

    fn items<T>(&mut self, close: &str, one: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut items = Vec::new();
        while !self.take_op(close) {
            if !items.is_empty() {
                self.expect_op(",")?;
                if self.take_op(close) {
                    break;
                }
            }
            items.push(one(self)?);
        }
        Ok(items)
    }
}
