"""`superbrain load`: how much a model takes, how long answers take, and what limits it.

command    the options, and the order of steps          generator  asks, in processes of its own
payload    what is sent                                 watch      who uses processor and memory
figures    a step's figures out of single latencies     search     the highest rate within a limit
advice     what limits, and what to change              text, plot, html  how it is shown
"""
