"""Objects as Docker's JSON: pure functions, one module a noun."""
