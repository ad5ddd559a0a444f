//! The kernel's frames on a device: what it takes, keeps, refuses and answers.
