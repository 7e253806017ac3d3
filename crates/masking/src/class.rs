//! Sets of data classes.

/// Most classes of one configuration: a set of them is one machine word pair.
pub const CLASSES_MAX: usize = 127;

/// A set of classes, by their position in the rules. The highest bit stands for *anything*: a value that
/// could be of any class, because where it comes from cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct ClassSet(u128);

impl ClassSet {
    /// No class.
    pub const EMPTY: Self = Self(0);
    /// A value that could be of any class.
    pub const ANYTHING: Self = Self(1 << CLASSES_MAX);

    /// The class at `position`; beyond [`CLASSES_MAX`] it is [`Self::ANYTHING`].
    #[must_use]
    pub fn one(position: usize) -> Self {
        if position < CLASSES_MAX { Self(1 << position) } else { Self::ANYTHING }
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Both sets together.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in this one alone.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether the two have something in common.
    #[must_use]
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Positions of its classes, in order, without *anything*.
    pub fn positions(self) -> impl Iterator<Item = usize> {
        (0..CLASSES_MAX).filter(move |position| self.0 & (1 << position) != 0)
    }
}

impl std::ops::BitOrAssign for ClassSet {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl std::ops::BitOr for ClassSet {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}
