//! The first readings of a table: how many rows, what its columns hold, and
//! what is to be put in the place of what is missing.

use super::columns::{ColumnFacts, ColumnKind, Encoding, Missing, MissingRule, Standard};
use super::rows::{at, number, word};
use super::{Cell, PART, Records, TableFacts};
use crate::dataset::element::BadNumber;
use crate::dataset::ingest::held_out;
use crate::dataset::{
    CLASSES_MAX, ColumnSpec, DatasetError, DatasetSpec, Target, TargetColumn, TargetKind,
};
use std::collections::{BTreeMap, BTreeSet};

/// Columns of a table: each is reported with the data set.
const COLUMNS_MAX: u64 = 1 << 16;
/// Values of one category column: more of them are names or numbers of things.
const CATEGORIES_MAX: usize = 1000;

/// What is known of a table before its rows are written.
pub struct Survey {
    pub facts: TableFacts,
    pub rows: u64,
    pub target: Target,
}

/// Reads the table once or twice.
///
/// # Errors
/// [`DatasetError`] with the place of what is wrong.
pub fn survey(records: &mut dyn Records, spec: &DatasetSpec) -> Result<Survey, DatasetError> {
    let columns = records.columns();
    let (limit, found) = (COLUMNS_MAX, columns as u64);
    if found > limit {
        return Err(DatasetError::Limit { part: PART, field: "columns", limit, found });
    }
    let mut asked = Asked::new(records, spec)?;
    for column in 0..columns {
        if let Some(rule) = records.refused(column)
            && asked.kinds[column] != Some(ColumnKind::Ignore)
        {
            return Err(asked.refuse(column, rule));
        }
    }
    let rows = asked.look(records)?;
    let limit = i32::MAX as u64;
    if rows > limit {
        return Err(DatasetError::Limit { part: PART, field: "rows", limit, found: rows });
    }
    let train = held_out(PART, rows, spec.test_fraction)?.train;
    let mut learners = asked.learners(spec)?;
    if learners.iter().any(Learner::needs_values) {
        records.rewind()?;
        let mut row = 0;
        while records.advance()? {
            for (column, learner) in learners.iter_mut().enumerate() {
                let cell = records.cell(column);
                let learned = learner.learn(cell, row < train);
                learned.map_err(|bad| at(bad, row, column, &asked.facts(column)))?;
            }
            row += 1;
        }
    }
    let mut feature = 0;
    let mut facts = Vec::with_capacity(columns);
    for (column, learner) in learners.into_iter().enumerate() {
        let encoding = learner.end(feature).map_err(|rule| asked.refuse(column, rule))?;
        feature += encoding.width() as u32;
        facts.push(ColumnFacts { encoding, ..asked.facts(column) });
    }
    let target = target(spec, &facts[asked.target])?;
    let facts = TableFacts { header: asked.names.is_some(), columns: facts };
    Ok(Survey { facts, rows, target })
}

/// The class count is the requester's where labels are numbers, and the number
/// of words where they are words.
fn target(spec: &DatasetSpec, column: &ColumnFacts) -> Result<Target, DatasetError> {
    let labels = match &column.encoding {
        Encoding::Target { labels } => labels.as_ref(),
        _ => None,
    };
    match (spec.target, labels, spec.classes) {
        (TargetKind::Values, ..) => Ok(Target::Values { width: 1 }),
        (TargetKind::Classes, None, Some(classes)) => Ok(Target::Classes { classes }),
        (TargetKind::Classes, None, None) => Err(DatasetError::Spec {
            field: "classes",
            rule: "given where labels are numbers, or the target column called a category".into(),
            found: "nothing".into(),
        }),
        (TargetKind::Classes, Some(labels), classes) => {
            let count = labels.len() as u32;
            match classes {
                Some(classes) if classes != count => Err(DatasetError::Spec {
                    field: "classes",
                    rule: format!("{count}, the labels in the target column, or absent"),
                    found: classes.to_string(),
                }),
                _ => Ok(Target::Classes { classes: count }),
            }
        }
    }
}

/// What the spec and the first values say of the columns.
struct Asked {
    names: Option<Vec<String>>,
    target: usize,
    kinds: Vec<Option<ColumnKind>>,
    standardize: Vec<bool>,
    missing: Vec<bool>,
}

impl Asked {
    fn new(records: &dyn Records, spec: &DatasetSpec) -> Result<Self, DatasetError> {
        let columns = records.columns();
        let names = records.names().map(<[String]>::to_vec);
        let target = target_index(spec, columns, names.as_deref())?;
        let mut asked = Asked {
            names,
            target,
            kinds: vec![None; columns],
            standardize: vec![spec.standardize; columns],
            missing: vec![false; columns],
        };
        for (name, ColumnSpec { kind, standardize }) in &spec.columns {
            let column = find(name, columns, asked.names.as_deref()).map_err(|rule| {
                DatasetError::Spec { field: "columns", rule, found: format!("{name:?}") }
            })?;
            asked.kinds[column] = kind.or(asked.kinds[column]);
            asked.standardize[column] = standardize.unwrap_or(asked.standardize[column]);
        }
        if spec.target == TargetKind::Values || spec.classes.is_some() {
            // Labels are words only where nobody says how many numbers there are.
            asked.kinds[target] = asked.kinds[target].or(Some(ColumnKind::Number));
        }
        let refuse = |rule: &str| DatasetError::Spec {
            field: "columns",
            rule: rule.into(),
            found: "the target column".into(),
        };
        match (asked.kinds[target], spec.target) {
            (Some(ColumnKind::Ignore), _) => Err(refuse("columns other than the target to ignore")),
            (Some(ColumnKind::Category), TargetKind::Values) => {
                Err(refuse("numbers where target is values"))
            }
            _ => Ok(asked),
        }
    }

    fn refuse(&self, column: usize, rule: &'static str) -> DatasetError {
        let name = self.facts(column).name;
        DatasetError::Column { part: PART, column: column as u64, name, rule }
    }

    fn facts(&self, column: usize) -> ColumnFacts {
        let name = self.names.as_ref().map(|names| names[column].clone());
        ColumnFacts { name, encoding: Encoding::Ignored }
    }

    /// Counts the rows; the first value that is there says what a column is.
    fn look(&mut self, records: &mut dyn Records) -> Result<u64, DatasetError> {
        let mut rows = 0;
        while records.advance()? {
            for column in 0..self.kinds.len() {
                match records.cell(column) {
                    Cell::Missing => self.missing[column] = true,
                    cell if self.kinds[column].is_none() => {
                        let is_number = cell.number().is_some();
                        let kind =
                            if is_number { ColumnKind::Number } else { ColumnKind::Category };
                        self.kinds[column] = Some(kind);
                    }
                    _ => {}
                }
            }
            rows += 1;
        }
        Ok(rows)
    }

    fn learners(&self, spec: &DatasetSpec) -> Result<Vec<Learner>, DatasetError> {
        let impute = spec.missing == MissingRule::Impute;
        let learner = |column: usize| {
            if column == self.target {
                let words = self.kinds[column] == Some(ColumnKind::Category)
                    && spec.target == TargetKind::Classes;
                return Learner::Target { labels: words.then(BTreeSet::new) };
            }
            match self.kinds[column] {
                Some(ColumnKind::Ignore) => Learner::Ignored,
                Some(ColumnKind::Category) => Learner::Category {
                    impute,
                    counts: BTreeMap::new(),
                    missing: Missing::default(),
                    unknown: 0,
                },
                // A column without any value ends as one without a mean.
                Some(ColumnKind::Number) | None => Learner::Number {
                    impute: impute && self.missing[column],
                    standardize: self.standardize[column],
                    count: 0,
                    mean: 0.0,
                    squares: 0.0,
                    missing: Missing::default(),
                },
            }
        };
        Ok((0..self.kinds.len()).map(learner).collect())
    }
}

/// What is learned of a column while its values pass.
enum Learner {
    Ignored,
    Target {
        labels: Option<BTreeSet<String>>,
    },
    Number {
        impute: bool,
        standardize: bool,
        count: u64,
        mean: f64,
        /// Sum of squared differences from the mean (Welford's way).
        squares: f64,
        missing: Missing,
    },
    Category {
        impute: bool,
        counts: BTreeMap<String, u64>,
        missing: Missing,
        unknown: u64,
    },
}

impl Learner {
    fn needs_values(&self) -> bool {
        match self {
            Learner::Ignored | Learner::Target { labels: None } => false,
            Learner::Number { impute, standardize, .. } => *impute || *standardize,
            Learner::Target { labels: Some(_) } | Learner::Category { .. } => true,
        }
    }

    fn learn(&mut self, cell: Cell<'_>, train: bool) -> Result<(), BadNumber> {
        match self {
            // Missing targets are refused where rows are written.
            Learner::Target { labels: Some(labels) } if cell != Cell::Missing => {
                let found = word(cell)?;
                if !labels.contains(&*found) {
                    if labels.len() as u32 >= CLASSES_MAX {
                        return Err(too_many(CLASSES_MAX as usize, "labels", cell));
                    }
                    labels.insert(found.into_owned());
                }
            }
            Learner::Ignored | Learner::Target { .. } => {}
            Learner::Number { impute, standardize, count, mean, squares, missing } => {
                if !*impute && !*standardize {
                    return Ok(());
                }
                if cell == Cell::Missing && *impute {
                    count_missing(missing, train);
                } else if train {
                    let value = number(cell)?;
                    *count += 1;
                    let before = value - *mean;
                    *mean += before / *count as f64;
                    *squares += before * (value - *mean);
                }
            }
            Learner::Category { impute, counts, missing, unknown } => {
                if cell == Cell::Missing && *impute {
                    count_missing(missing, train);
                    return Ok(());
                }
                let found = word(cell)?;
                if let Some(count) = counts.get_mut(&*found) {
                    *count += u64::from(train);
                } else if !train {
                    *unknown += 1;
                } else if counts.len() >= CATEGORIES_MAX {
                    return Err(too_many(CATEGORIES_MAX, "categories", cell));
                } else {
                    counts.insert(found.into_owned(), 1);
                }
            }
        }
        Ok(())
    }

    /// The encoding of the column, its features from `feature` on.
    fn end(self, feature: u32) -> Result<Encoding, &'static str> {
        let rule = "a column with at least one value in the training rows, or ignored";
        Ok(match self {
            Learner::Ignored => Encoding::Ignored,
            Learner::Target { labels } => {
                Encoding::Target { labels: labels.map(|labels| labels.into_iter().collect()) }
            }
            Learner::Number { impute, standardize, count, mean, squares, missing } => {
                if (impute || standardize) && count == 0 {
                    return Err(rule);
                }
                let deviation = (squares / count.max(1) as f64).sqrt();
                let deviation = if deviation > 0.0 { deviation } else { 1.0 };
                Encoding::Number {
                    feature,
                    missing,
                    imputed: impute.then_some(mean),
                    standard: standardize.then_some(Standard { mean, deviation }),
                }
            }
            Learner::Category { impute, counts, missing, unknown } => {
                // The first in order among the most frequent.
                let most = counts.values().max().copied().ok_or(rule)?;
                let frequent = counts.iter().find(|(_, count)| **count == most);
                let imputed = frequent.filter(|_| impute && missing != Missing::default());
                let imputed = imputed.map(|(category, _)| category.clone());
                let categories = counts.into_keys().collect();
                Encoding::Category { feature, categories, missing, imputed, unknown }
            }
        })
    }
}

fn count_missing(missing: &mut Missing, train: bool) {
    let count = if train { &mut missing.train } else { &mut missing.test };
    *count += 1;
}

fn too_many(limit: usize, what: &str, cell: Cell<'_>) -> BadNumber {
    BadNumber { rule: format!("one of at most {limit} {what}"), found: cell.shown() }
}

/// A column by its name or, where no column has that name, by its position.
fn find(wanted: &str, columns: usize, names: Option<&[String]>) -> Result<usize, String> {
    let mut named = names.unwrap_or(&[]).iter().enumerate().filter(|(_, name)| *name == wanted);
    match (named.next(), named.next()) {
        (Some((column, _)), None) => Ok(column),
        (Some(_), Some(_)) => Err("a name that one column has".into()),
        (None, _) => match wanted.parse::<usize>() {
            Ok(column) if column < columns => Ok(column),
            Ok(_) => Err(format!("below {columns}, the number of columns")),
            Err(_) if names.is_some() => Err("a name in the first line".into()),
            Err(_) => Err("an index: the table has no names".into()),
        },
    }
}

fn target_index(
    spec: &DatasetSpec,
    columns: usize,
    names: Option<&[String]>,
) -> Result<usize, DatasetError> {
    if columns < 2 {
        let (rule, found) = ("at least two columns".into(), vec![columns as u64]);
        return Err(DatasetError::Shape { part: PART, rule, found });
    }
    let (wanted, found) = match &spec.target_column {
        None => return Ok(columns - 1),
        Some(TargetColumn::Index(index)) if (*index as usize) < columns => {
            return Ok(*index as usize);
        }
        Some(TargetColumn::Index(index)) => (index.to_string(), index.to_string()),
        Some(TargetColumn::Name(name)) => (name.clone(), format!("{name:?}")),
    };
    find(&wanted, columns, names).map_err(|rule| DatasetError::Spec {
        field: "target_column",
        rule,
        found,
    })
}
