"""The arithmetic of a session, compiled once and used by everything that decides, fills or values an account.

The backtest runs it over a whole panel (`sessions.run_sessions`); the live session, the replay and the paper broker call its
parts through `decision`, `planner`, `risk`, `actions` and `auction`. So all of them agree to the bit: there is nothing to agree
on.

Symbols are columns in the order of their names, and every sum runs over them in that order: neither the order of the input
nor a symbol that is not held changes a bit. A quantity is signed: above 0 a long position or a purchase, below 0 a short
position or a sale.
"""
