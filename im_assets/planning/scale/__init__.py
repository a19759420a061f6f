"""What a study takes on machines that are not there yet: hours, memory, disk, requests, money.

Everything is a range. A coefficient is measured in this project, read where it is named, or
assumed, and says which (``coefficients.json``); what nobody has measured is told as "not measured".
"""
