//! What kind of thing a job is for, by its owner's word, and which kinds a session refuses.

use raven_protocol::JobCategory;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a job is for, in the words that visitors and partners choose by.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Images and video.
    Vision,
    /// Text and speech.
    Language,
    /// Rows of a table.
    Tabular,
    /// Research whose results are for everyone.
    Science,
    /// Prices, credit, risk.
    Finance,
    /// Whatever its owner did not name.
    #[default]
    Other,
}

impl Category {
    /// Every category, in the order of their bits in a [`CategorySet`].
    pub const ALL: [Category; 6] = [
        Category::Vision,
        Category::Language,
        Category::Tabular,
        Category::Science,
        Category::Finance,
        Category::Other,
    ];

    /// The name in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Category::Vision => "vision",
            Category::Language => "language",
            Category::Tabular => "tabular",
            Category::Science => "science",
            Category::Finance => "finance",
            Category::Other => "other",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<JobCategory> for Category {
    fn from(category: JobCategory) -> Self {
        match category {
            JobCategory::Vision => Category::Vision,
            JobCategory::Language => Category::Language,
            JobCategory::Tabular => Category::Tabular,
            JobCategory::Science => Category::Science,
            JobCategory::Finance => Category::Finance,
            JobCategory::Other => Category::Other,
        }
    }
}

/// Some of the categories. In documents it is a list of names.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<Category>", into = "Vec<Category>")]
pub struct CategorySet(u8);

impl CategorySet {
    /// None of them.
    pub const EMPTY: CategorySet = CategorySet(0);

    /// Whether `category` is one of them.
    pub const fn contains(self, category: Category) -> bool {
        self.0 & category.bit() != 0
    }

    /// The same with `category`.
    #[must_use]
    pub const fn with(self, category: Category) -> Self {
        CategorySet(self.0 | category.bit())
    }

    /// The members of either.
    #[must_use]
    pub const fn union(self, other: CategorySet) -> Self {
        CategorySet(self.0 | other.0)
    }

    /// The categories that are no members.
    #[must_use]
    pub fn complement(self) -> Self {
        Category::ALL.into_iter().filter(|&category| !self.contains(category)).collect()
    }

    /// Whether each of its members is one of `other`'s.
    pub const fn is_within(self, other: CategorySet) -> bool {
        self.0 & !other.0 == 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its members, in the order of [`Category::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Category> {
        Category::ALL.into_iter().filter(move |&category| self.contains(category))
    }

    /// One bit for each category, for stores.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Reads what [`CategorySet::bits`] gave; bits of no category are dropped.
    pub fn from_bits(bits: u8) -> Self {
        Category::ALL.into_iter().filter(|category| bits & category.bit() != 0).collect()
    }
}

impl FromIterator<Category> for CategorySet {
    fn from_iter<I: IntoIterator<Item = Category>>(categories: I) -> Self {
        categories.into_iter().fold(CategorySet::EMPTY, CategorySet::with)
    }
}

impl FromIterator<JobCategory> for CategorySet {
    fn from_iter<I: IntoIterator<Item = JobCategory>>(categories: I) -> Self {
        categories.into_iter().map(Category::from).collect()
    }
}

impl From<Vec<Category>> for CategorySet {
    fn from(categories: Vec<Category>) -> Self {
        categories.into_iter().collect()
    }
}

impl From<CategorySet> for Vec<Category> {
    fn from(set: CategorySet) -> Self {
        set.iter().collect()
    }
}

impl fmt::Debug for CategorySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// The categories of which a session gets no task. Its visitor and the site through
/// which it came refuse each on their own, and neither lifts what the other refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusedCategories {
    pub by_visitor: CategorySet,
    pub by_site: CategorySet,
}

impl RefusedCategories {
    /// Whether either refuses it.
    pub const fn contains(self, category: Category) -> bool {
        self.by_visitor.contains(category) || self.by_site.contains(category)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_into_it_and_nothing_else() {
        for category in Category::ALL {
            let set = CategorySet::EMPTY.with(category);
            assert_eq!(set.iter().collect::<Vec<_>>(), [category]);
            assert_eq!(CategorySet::from_bits(set.bits()), set);
            assert!(!set.is_empty() && CategorySet::EMPTY.is_empty());
        }
        let all: CategorySet = Category::ALL.into_iter().collect();
        assert_eq!(CategorySet::from_bits(u8::MAX), all, "bits of no category are dropped");
    }

    #[test]
    fn a_set_and_what_it_lacks_are_all_of_them() {
        let some = CategorySet::EMPTY.with(Category::Vision).with(Category::Other);
        let rest = some.complement();
        assert_eq!(rest.union(some).complement(), CategorySet::EMPTY);
        assert_eq!(CategorySet::EMPTY.complement(), Category::ALL.into_iter().collect());
        assert!(CategorySet::EMPTY.is_within(some) && some.is_within(some));
        assert!(some.is_within(some.union(rest)) && !some.union(rest).is_within(some));
        assert!(!rest.is_within(some));
    }

    #[test]
    fn neither_visitor_nor_site_lifts_what_the_other_refuses() {
        let refused = RefusedCategories {
            by_visitor: CategorySet::EMPTY.with(Category::Finance),
            by_site: CategorySet::EMPTY.with(Category::Vision),
        };
        let both: Vec<_> = Category::ALL.into_iter().filter(|c| refused.contains(*c)).collect();
        assert_eq!(both, [Category::Vision, Category::Finance]);
    }
}
