"""The demonstration: a requester, a partner page and its visitors on one machine."""
