"""How often dulian is right: profiles judged on labelled pictures, and calibration tables fitted to them."""
