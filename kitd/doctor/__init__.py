"""What is wrong with kitd or with what it needs, and the command that mends it.

`symptom.py` is cheap and asked for by every `status`: what hinders kitd now. The other modules look
at what surrounds it as well, for `kitctl doctor`. One look is one function; `examination.py` has
the list. Nothing here changes anything.
"""
