"""The part of the report about rules, profile and machine."""
