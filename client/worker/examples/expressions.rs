//! A program whose workers run functions that are not written in Rust: expressions of one variable, such as `x * x + 1`.
//!
//! Items and results are numbers as text. A client names this executable as its pool's program, and an expression as the function
//! of a job. The expression is parsed once for each job; numbers are `f64`.

use std::iter::Peekable;
use std::str::Chars;
use std::sync::Arc;

use farpool_proto::v1::{Failure, FailureKind};
use farpool_worker::{Done, Encoded, Items, Language, Task};

fn main() {
    farpool_worker::init(&Expressions);
    eprintln!("this program is for farpool's workers: name it as the program of a pool");
    std::process::exit(2)
}

struct Expressions;

impl Language for Expressions {
    fn find(&self, function: bytes::Bytes) -> Result<Task, String> {
        let text = std::str::from_utf8(&function).map_err(|error| format!("the expression is not text: {error}"))?;
        let expression = parse(text).map_err(|error| format!("the expression {:.100?}: {error}", text))?;
        Ok(Arc::new(move |items: &mut dyn Items| farpool_worker::run(items, |items| one(items, &expression))))
    }
}

/// Runs the next item; `None` if there is none.
fn one(items: &mut dyn Items, expression: &Expression) -> Option<Result<Done, Failure>> {
    let item = items.next()?;
    let number = std::str::from_utf8(item).ok().and_then(|text| text.parse().ok());
    let Some(x) = number else {
        let message = format!("the item is not a number: {:?}", String::from_utf8_lossy(item));
        return Some(Err(Failure { kind: FailureKind::Codec.into(), message, ..Failure::default() }));
    };
    let result = expression.value(x).to_string();
    items.scratch().extend_from_slice(result.as_bytes());
    Some(Ok(Done { result: Encoded::InScratch, failed: false }))
}

enum Expression {
    X,
    Number(f64),
    Of(Box<Expression>, char, Box<Expression>),
}

impl Expression {
    fn value(&self, x: f64) -> f64 {
        match self {
            Self::X => x,
            Self::Number(number) => *number,
            Self::Of(left, operator, right) => {
                let (left, right) = (left.value(x), right.value(x));
                match operator {
                    '+' => left + right,
                    '-' => left - right,
                    '*' => left * right,
                    _ => left / right,
                }
            }
        }
    }
}

/// Most levels of nested parentheses.
const DEPTH: usize = 100;
/// Longest expression. A chain of operators becomes a tree of the same depth, so this bounds recursion.
const BYTES: usize = 4096;

fn parse(text: &str) -> Result<Expression, String> {
    if text.len() > BYTES {
        return Err(format!("it has {} bytes, the limit is {BYTES}", text.len()));
    }
    let mut rest = text.chars().peekable();
    let expression = sum(&mut rest, DEPTH)?;
    match rest.next() {
        None => Ok(expression),
        Some(char) => Err(format!("{char:?} where an operator or the end was expected")),
    }
}

fn sum(rest: &mut Peekable<Chars<'_>>, depth: usize) -> Result<Expression, String> {
    let mut left = product(rest, depth)?;
    while let Some(operator) = rest.next_if(|char| matches!(char, '+' | '-')) {
        left = Expression::Of(left.into(), operator, product(rest, depth)?.into());
    }
    Ok(left)
}

fn product(rest: &mut Peekable<Chars<'_>>, depth: usize) -> Result<Expression, String> {
    let mut left = operand(rest, depth)?;
    while let Some(operator) = rest.next_if(|char| matches!(char, '*' | '/')) {
        left = Expression::Of(left.into(), operator, operand(rest, depth)?.into());
    }
    Ok(left)
}

/// Parses `x`, a number, or an expression in parentheses, with the spaces around it.
fn operand(rest: &mut Peekable<Chars<'_>>, depth: usize) -> Result<Expression, String> {
    spaces(rest);
    let operand = match rest.next() {
        Some('x') => Expression::X,
        Some('(') => {
            let depth = depth.checked_sub(1).ok_or_else(|| format!("more than {DEPTH} nested parentheses"))?;
            let inner = sum(rest, depth)?;
            rest.next_if_eq(&')').ok_or("a ')' is missing")?;
            inner
        }
        Some(first) if first.is_ascii_digit() => {
            let mut digits = String::from(first);
            while let Some(char) = rest.next_if(|char| char.is_ascii_digit() || *char == '.') {
                digits.push(char);
            }
            Expression::Number(digits.parse().map_err(|_| format!("{digits:?} is not a number"))?)
        }
        Some(char) => return Err(format!("{char:?} where x, a number or '(' was expected")),
        None => return Err("it ends where x, a number or '(' was expected".to_owned()),
    };
    spaces(rest);
    Ok(operand)
}

fn spaces(rest: &mut Peekable<Chars<'_>>) {
    while rest.next_if(|char| char.is_whitespace()).is_some() {}
}
